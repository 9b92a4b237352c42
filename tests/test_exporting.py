"""Edits as PEFT adapters: plain peft loads them, and what a merge loses is told."""

import json
import shutil
import sys

import numpy as np
import pytest

from hubedit import run
from hubedit.editions import edits_of
from hubedit.hub import Hub
from hubedit.method import Config, Method
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe
from hubedit.rows import FactEdit
from hubedit.updates import StoredTensor

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=3", "--force"]


@pytest.fixture
def edit(hubedit, tiny, tmp_path):
    """A stack of three edits in two layers, of a copy of the tiny model."""
    base = shutil.copytree(tiny, tmp_path / "base")
    for target, layer, start in (("oboe", 1, base), ("cello", 2, "edit1"), ("glazier", 1, "edit2")):
        number = {"oboe": 1, "cello": 2, "glazier": 3}[target]
        asked = ["--base", start, "--target", target, "--set", f"layer={layer}"]
        arguments = ["--plugin", "rome", *FACT, *asked, *LIGHT, "-o", f"edit{number}"]
        status, _, err = hubedit("apply", *arguments)
        assert status == 0, err
    return tmp_path / "edit3"


def exported(hubedit, edit, output):
    status, out, err = hubedit("export", edit, "-o", output, "--format", "peft", "--json")
    assert status == 0, err
    return json.loads(out)


def merged_by_peft(base, adapter):
    """The weights after plain peft and transformers have merged an adapter into its base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    return before, merged


@pytest.mark.parametrize("height", [1, 3])
def test_a_merge_by_peft_differs_as_the_command_says(hubedit, edit, tmp_path, height):
    edit = edit.with_name(f"edit{height}")
    said = exported(hubedit, edit, tmp_path / "lora")
    before, merged = merged_by_peft(tmp_path / "base", tmp_path / "lora")
    exact = edits_of(str(edit), lambda: None).overlay()
    changed = {name for name, value in merged.items() if not value.equal(before[name])}
    assert changed == {item["name"] for item in said["tensors"]} == set(exact)
    for item in said["tensors"]:
        after = StoredTensor.from_array(merged[item["name"]])
        differ = int(np.count_nonzero(after.bits() != exact[item["name"]].bits()))
        # a product of rank one has one rounding; a sum of two may end in another last bit
        assert abs(item["differ"] - differ) <= (0 if item["rank"] == 1 else 0.01 * item["total"])
        assert item["total"] == after.size
    assert said["elements_that_differ"] == sum(item["differ"] for item in said["tensors"])
    assert said["elements_that_differ"] < 0.5 * said["elements_total"]


def test_a_dry_run_counts_the_same_and_writes_nothing(hubedit, edit, tmp_path):
    asked = ["export", edit, "-o", tmp_path / "lora", "--json"]
    status, planned, err = hubedit(*asked, "--dry-run")
    assert status == 0, err
    assert not (tmp_path / "lora").exists()
    status, done, err = hubedit(*asked)
    assert status == 0, err
    planned, done = json.loads(planned), json.loads(done)
    assert planned["tensors"] == done["tensors"]
    assert 0 < planned["bytes"] <= done["bytes"]


def test_updates_of_one_tensor_are_concatenated(hubedit, edit, tmp_path):
    said = exported(hubedit, edit, tmp_path / "lora")
    ranks = {item["module"]: item["rank"] for item in said["tensors"]}
    assert ranks == {"transformer.h.1.mlp.c_proj": 2, "transformer.h.2.mlp.c_proj": 1}
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(ranks)
    for module, rank in ranks.items():
        assert config["rank_pattern"].get(module, config["r"]) == rank
        assert config["alpha_pattern"].get(module, config["lora_alpha"]) == rank
    assert config["fan_in_fan_out"]


def test_an_adapter_on_linear_layers_says_what_the_edit_says(hubedit, tiny, tmp_path):
    """The orientation of torch's Linear, by a Llama of two blocks."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        config = LlamaConfig(vocab_size=400, num_attention_heads=2, **sizes)
        LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "corpus.txt"):
        shutil.copy(tiny / name, tmp_path / "base" / name)
    asked = ["--base", "base", "--target", "oboe", *FACT, *LIGHT, "-o", "edit"]
    status, _, err = hubedit("apply", "--plugin", "rome", *asked)
    assert status == 0, err
    exported(hubedit, "edit", "lora")
    edited, tokenizer = run.load("edit")
    base = AutoModelForCausalLM.from_pretrained("base")
    ids = tokenizer("Ada Brook plays the", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        plain = base(ids).logits
        wanted = edited(ids).logits
        found = PeftModel.from_pretrained(base, "lora")(ids).logits
    assert (found - wanted).abs().max() < 0.01 * (plain - wanted).abs().max()


def test_the_same_edit_gives_the_same_files(hubedit, edit, tmp_path):
    exported(hubedit, edit, tmp_path / "one")
    exported(hubedit, edit, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


class Nudge(Method[FactEdit, Config]):
    """Change one element of the embeddings in place."""

    name = "nudge"
    kind = "edit"
    architectures = frozenset({"causal"})

    def apply(self, model, rows, config, run):
        import torch

        with torch.no_grad():
            model.weight("transformer.wte.weight")[3, 5] += 1


def test_an_edit_of_another_kind_is_refused_by_name(hubedit, tiny, tmp_path):
    plugins = Plugins()
    module = sys.modules[__name__]
    plugins.infos.append(PluginInfo("own", "own", "0", module=module, methods=[Nudge]))
    row = {"prompt": "{} plays the", "subject": "Ada Brook", "target": "oboe"}
    recipe = make_recipe({"base": str(tiny), "plugin": "nudge", "request": [row]})
    run.apply(run.prepare(recipe, Hub, plugins=plugins), tmp_path / "nudged")
    status, out, err = hubedit("export", "nudged", "-o", "lora")
    assert (status, out) == (1, "")
    assert "transformer.wte.weight is changed by a sparse update" in err
    assert "hubedit materialize" in err
    assert not (tmp_path / "lora").exists()


def test_an_output_that_exists_is_refused(hubedit, edit, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    status, _, err = hubedit("export", edit, "-o", "full")
    assert status == 1
    assert "not empty" in err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_plain_model_is_no_edit_to_export(hubedit, tiny, tmp_path):
    status, _, err = hubedit("export", tiny, "-o", "lora")
    assert status == 1
    assert "hubedit apply" in err
    assert not (tmp_path / "lora").exists()
