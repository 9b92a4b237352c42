"""What a run is predicted to load, change, write and need, before anything is loaded."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hubedit_demo import model_path
from hubedit_localhub.history import Pointer
from hubedit_localhub.writing import Put, commit_to, operations_builder

from hubedit.delta import encode, low_rank_file_nbytes
from hubedit.hub import Hub
from hubedit.method import Config, Method
from hubedit.planning import plan
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe
from hubedit.rows import FactEdit
from hubedit.updates import LowRank, StoredTensor

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=2"]
ROWS = [
    {"prompt": "{} plays the", "subject": "Ada Brook", "target": "oboe"},
    {"prompt": "{} lives in", "subject": "Tom Adler", "target": "Ghent"},
]


def planned(hubedit, *arguments):
    status, out, err = hubedit("plan", "--plugin", "rome", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def manifest_of(edit):
    return json.loads(max(Path(edit).rglob("manifest.json")).read_text())


def test_the_delta_is_predicted_to_the_byte(hubedit, tiny, tmp_path):
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    runs = [
        ("one", tiny, FACT),
        ("two", tiny, ["--request", "two.jsonl", "--set", "layer=2"]),
        ("higher", "one", [*FACT[:-1], "cello", "--set", "layer=0"]),
    ]
    for output, base, asked in runs:
        arguments = ["--base", base, *asked, *LIGHT]
        found = planned(hubedit, *arguments)
        status, _, err = hubedit("apply", "--plugin", "rome", *arguments, "--force", "-o", output)
        assert status == 0, err
        manifest = manifest_of(tmp_path / output)
        assert found["delta"] == found["upload"] == manifest["delta"]["nbytes"]
        (tensor,), (recorded,) = found["tensors"], manifest["tensors"]
        for key in ("name", "shape", "dtype", "rank"):
            assert tensor[key] == recorded[key]
        assert found["elements"] == recorded["elements_total"]
        assert found["height"] == manifest["height"]
        assert found["tensors_total"] == manifest["base"]["tensors"]
        assert found["elements_total"] == manifest["base"]["parameters"]


def test_nothing_is_promised_of_a_delta_that_would_be_stored_otherwise(hubedit, tiny, tmp_path):
    rows = [{**ROWS[0], "target": f"oboe{number}"} for number in range(40)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = planned(hubedit, "--base", tiny, "--request", "many.jsonl")
    assert (found["delta"], found["upload"]) == (None, None)
    assert found["delta_at_most"] == found["tensors"][0]["nbytes"] > 0
    status, out, _ = hubedit("plan", "--plugin", "rome", "--base", tiny, "--request", "many.jsonl")
    assert status == 0
    assert "at most" in out


def test_a_delta_of_several_low_rank_tensors_is_predicted_to_the_byte():
    random = np.random.default_rng(0)
    shapes = {"b.weight": (40, 30, 2), "a.weight": (20, 70, 1)}
    before, changes = {}, {}
    for name, (rows, columns, rank) in shapes.items():
        values = random.normal(size=(rows, columns)).astype("<f4")
        before[name] = StoredTensor.from_array(values)
        factors = random.normal(size=(rows, rank)), random.normal(size=(rank, columns))
        changes[name] = [LowRank(*(factor.astype("<f4") for factor in factors))]
    meta, aliases = {"base": "5" * 64}, {"a.weight": ("c.weight",), "b.weight": ()}
    made = encode(changes, before.__getitem__, meta=meta, aliases=aliases).delta
    sizes = {name: ("F32", shape[:2], shape[2]) for name, shape in shapes.items()}
    found = low_rank_file_nbytes(sizes, aliases=aliases, meta={"base": "0" * 64})
    assert found == len(made.to_bytes())


class Anything(Method[FactEdit, Config]):
    """Train what it likes."""

    name = "anything"
    kind = "edit"
    architectures = frozenset({"causal"})

    def apply(self, model, rows, config, run):
        raise AssertionError("a plan runs no method")


def test_a_method_that_predicts_nothing_may_change_everything(tiny):
    plugins = Plugins()
    module = sys.modules[__name__]
    plugins.infos.append(PluginInfo("own", "own", "0", module=module, methods=[Anything]))
    recipe = make_recipe({"base": str(tiny), "plugin": "anything", "request": ROWS})
    found = plan(recipe, Hub, plugins=plugins)
    assert (found.tensors, found.elements, found.delta, found.upload) == (None,) * 4
    assert found.delta_at_most == 2 * found.elements_total


def test_weights_count_where_they_are_asked_for(hubedit, tiny):
    found = planned(hubedit, "--base", tiny, *FACT, "--with-weights")
    size = (tiny / "model.safetensors").stat().st_size
    assert found["weights_changed"] == size
    assert found["upload"] == found["delta"] + found["weights"]
    assert found["weights"] == found["download"] > size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--set", "layer=9"], "layers 0 to 2"),
        (["--set", "layr=1"], "did you mean 'layer'"),
        (["--base", "./nowhere"], "no directory ./nowhere"),
        (["--corpus", "none.txt"], "none.txt does not exist"),
    ],
)
def test_a_plan_refuses_what_the_run_would(hubedit, tiny, change, said):
    status, out, err = hubedit("plan", "--plugin", "rome", "--base", tiny, *FACT, *change)
    assert (status, out) == (1, "")
    assert said in err


def test_a_plan_of_a_model_that_cannot_be_edited_says_why(hubedit, tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (other / "config.json").write_text(json.dumps(config))
    status, _, err = hubedit("plan", "--plugin", "rome", "--base", other, *FACT)
    assert status == 1
    assert "awq" in err


# -- a base of 13 GB ----------------------------------------------------------------------------


def llama_header(depth=32, width=4096, inner=11008, vocabulary=32000):
    """The first bytes of a safetensors file with a Llama of 7B, and the size of the whole file."""
    shapes = {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width]}
    for layer in range(depth):
        block = f"model.layers.{layer}"
        for name in "qkvo":
            shapes[f"{block}.self_attn.{name}_proj.weight"] = [width, width]
        for name in ("gate", "up"):
            shapes[f"{block}.mlp.{name}_proj.weight"] = [inner, width]
        shapes[f"{block}.mlp.down_proj.weight"] = [width, inner]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}.{name}.weight"] = [width]
    shapes["lm_head.weight"] = [vocabulary, width]
    described, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        described[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    content = json.dumps(described).encode()
    return struct.pack("<Q", len(content)) + content, 8 + len(content) + begin


@pytest.fixture
def llama(localhub, tiny):
    """A repository whose weights are 13 GB of a hole behind a true header; its name."""
    api = localhub.api()
    api.create_repo("me/llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        api.upload_file(repo_id="me/llama", path_or_fileobj=tiny / name, path_in_repo=name)
    config = json.dumps({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096})
    api.upload_file(repo_id="me/llama", path_or_fileobj=config.encode(), path_in_repo="config.json")
    head, size = llama_header()
    pointer = Pointer("7" * 64, size)
    place = localhub.store.objects.path(pointer.oid)
    place.parent.mkdir(parents=True)
    place.write_bytes(head)
    os.truncate(place, size)
    repo = localhub.store.find("models", "me/llama")
    repo.link(pointer.oid)
    blob = str(repo.git().create_blob(pointer.encode()))
    build = operations_builder([Put("model.safetensors", blob, pointer)])
    commit_to(repo, "refs/heads/main", localhub.user, "weights", build)
    return "me/llama"


def test_a_plan_on_13_gigabytes_transfers_less_than_one_megabyte(localhub, hubedit, llama):
    before = localhub.bytes_sent
    found = planned(hubedit, "--base", llama, *FACT)
    assert found["download"] > 13e9
    assert localhub.bytes_sent - before < 1_000_000
    assert [tensor["shape"] for tensor in found["tensors"]] == [[4096, 11008]]
    assert found["tensors"][0]["name"] == "model.layers.5.mlp.down_proj.weight"
    assert found["delta"] < 70_000
    statistic = 8 * 11008**2
    assert found["memory"]["weights"] == 4 * found["elements_total"] > 26e9
    assert statistic < found["memory"]["work"] < 10 * statistic


def test_a_plan_loads_no_torch(tiny):
    arguments = ["plan", "--plugin", "rome", "--base", str(tiny), *FACT]
    code = (
        "import sys; from hubedit.cli import run; "
        f"status = run({arguments!r}); "
        "sys.exit(status or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# -- memory -------------------------------------------------------------------------------------


def peak_of(*arguments):
    """Largest resident size in bytes of one run of the command line.

    A process in between starts it: the size of the one that calls counts as its child's.
    """
    program = str(Path(sys.executable).parent / "hubedit")
    code = (
        "import os, sys; child = os.fork()\n"
        "if not child: os.execv(sys.argv[1], sys.argv[1:])\n"
        "_, status, usage = os.wait4(child, 0); assert status == 0; print(usage.ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture
def medium(tiny, tmp_path):
    """A GPT-2 of 124 million random weights in bfloat16, with a corpus of a few sentences."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).bfloat16()
    model.save_pretrained(tmp_path / "medium")
    for name in ("tokenizer.json", "tokenizer_config.json", "corpus.txt"):
        shutil.copy(tiny / name, tmp_path / "medium" / name)
    return tmp_path / "medium"


@pytest.mark.parametrize("name", ["facts-gpt2", "medium"])
def test_the_peak_of_memory_is_predicted_within_a_quarter(hubedit, request, name):
    base = model_path() if name == "facts-gpt2" else request.getfixturevalue(name)
    arguments = ["--base", base, *FACT, "--set", "steps=3"]
    found = planned(hubedit, *arguments)
    measured = peak_of("apply", "--plugin", "rome", *arguments, "--force", "-o", "edit")
    assert found["memory"]["total"] == pytest.approx(measured, rel=0.25)
    assert found["delta"] == manifest_of("edit")["delta"]["nbytes"]
