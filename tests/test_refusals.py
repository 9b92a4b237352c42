"""What cannot be edited exactly is refused in one sentence, and nothing is left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny as tiny_models
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hubedit import models
from hubedit.errors import UnmappedTensorError, UnsupportedModelError
from hubedit.layouts import LAYOUTS, Layout

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"]
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {"moe_intermediate_size": 16, "head_dim": 8},
    "olmoe": {},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_group": 1,
        "topk_group": 1,
    },
}


def mixture(directory: Path, family: str) -> Path:
    """A tiny mixture of experts, as transformers saves it."""
    words = tiny_models.tokenizer()
    settings = {"num_experts": 4, "num_experts_per_tok": 2, **EXPERTS[family]}
    shape = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if family == "deepseek_v3" else 2,
        "intermediate_size": 64,
    }
    config = AutoConfig.for_model(family, vocab_size=len(words), **shape, **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def with_tokenizer(directory: Path, kind: str, **files: str) -> Path:
    """A model whose tokenizer is of another class, with files of its own."""
    tiny_models.make(directory)
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    for name, content in files.items():
        (directory / name.replace("_", ".")).write_text(content)
    return directory


def quantised(directory: Path) -> Path:
    tiny_models.make(directory)
    tiny_models.set_config(directory, quantization_config={"quant_method": "awq", "bits": 4})
    return directory


def pickled(directory: Path) -> Path:
    tiny_models.make(directory)
    torch.save(tiny_models.read_tensors(directory), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


def with_code(directory: Path) -> Path:
    tiny_models.make(directory)
    tiny_models.set_config(directory, auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    (directory / "modeling.py").write_text("raise SystemExit('this code ran')\n")
    return directory


def unknown(directory: Path) -> Path:
    tiny_models.make(directory)
    tiny_models.set_config(directory, model_type="gpt99")
    return directory


def in_whole_numbers(directory: Path) -> Path:
    tiny_models.make(directory)
    tensors = tiny_models.read_tensors(directory)
    name = "transformer.h.1.mlp.c_proj.weight"
    tensors[name] = (tensors[name] * 16).to(torch.int8)
    tiny_models.write_tensors(directory, tensors)
    return directory


def incomplete(directory: Path) -> Path:
    tiny_models.make(directory)
    tensors = tiny_models.read_tensors(directory)
    del tensors["transformer.h.1.mlp.c_proj.weight"]
    tiny_models.write_tensors(directory, tensors)
    return directory


CTRL = {"vocab_json": '{"<unk>": 0, "a": 1}', "merges_txt": "#version: 0.2\n"}
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mixtral": (lambda at: mixture(at, "mixtral"), r"'mixtral' are mixtures of experts.*start"),
    "qwen2_moe": (lambda at: mixture(at, "qwen2_moe"), r"'qwen2_moe' are mixtures of experts"),
    "quantised": (quantised, r"quantised \(awq\).*edit the model it was made from"),
    "pickled": (pickled, r"pytorch_model\.bin alone, a pickle.*save_pretrained"),
    "code": (with_code, r"auto_map.*never runs; start from"),
    "slow": (lambda at: with_tokenizer(at, "CTRLTokenizer", **CTRL), r"not a fast one.*start from"),
    "unknown": (unknown, r"'gpt99' have no layout; known: .*gpt2, .*Layout"),
    "whole numbers": (in_whole_numbers, r"I8.*unquantised checkpoint"),
    "incomplete": (incomplete, r"lack 'transformer\.h\.1\.mlp\.c_proj\.weight'.*start from"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_cannot_be_edited_is_refused_in_one_sentence(tmp_path, what):
    make, sentence = REFUSED[what]
    with pytest.raises(UnsupportedModelError, match=sentence) as caught:
        models.load(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", REFUSED)
def test_the_command_line_says_so_in_one_line_and_leaves_nothing(tmp_path, hubedit, capsys, what):
    make, sentence = REFUSED[what]
    base = make(tmp_path / "base")
    there = {path.name for path in tmp_path.iterdir()}
    capsys.readouterr()
    output = tmp_path / "edit"
    status, out, err = hubedit(
        "apply", "--plugin", "rome", "--base", base, *FACT, "-o", output, "--json"
    )
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("hubedit: ")
    assert re.search(sentence, line)
    assert {path.name for path in tmp_path.iterdir()} <= there


def test_an_output_directory_that_is_there_stays_empty(tmp_path, hubedit):
    base = mixture(tmp_path / "base", "mixtral")
    output = tmp_path / "edit"
    output.mkdir()
    status, _, err = hubedit("apply", "--plugin", "rome", "--base", base, *FACT, "-o", output)
    assert status == 1
    assert "mixtures of experts" in err
    assert list(output.iterdir()) == []


@pytest.mark.parametrize("family", EXPERTS)
def test_merged_experts_are_refused_whatever_layout_is_given(tmp_path, family):
    directory = mixture(tmp_path, family)
    with pytest.raises(UnsupportedModelError, match="mixtures of experts"):
        models.load(directory)
    layout = Layout(
        model_type=family,
        architecture="causal",
        block="model.layers.{}",
        attention="model.layers.{}.self_attn",
        mlp="model.layers.{}.mlp",
        mlp_out="model.layers.{}.self_attn.o_proj",
        embeddings="model.embed_tokens",
        final_norm="model.norm",
        head="lm_head",
    )
    with pytest.raises(UnmappedTensorError, match=r"experts of a layer.*one by one.*without"):
        models.load(directory, layout=layout)


def test_a_family_without_a_layout_is_loaded_with_one_that_is_given(tmp_path):
    words = tiny_models.tokenizer()
    config = AutoConfig.for_model("stablelm", vocab_size=len(words), **tiny_models.CONFIGS["llama"])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError) as caught:
        models.load(tmp_path)
    assert all(family in str(caught.value) for family in LAYOUTS)
    model = models.load(tmp_path, layout=LAYOUTS["llama"])
    weight = model.layout.mlp_out_weight(1)
    model.update(weight, tiny_models.factors(*model.weight(weight).shape))
    assert list(model.changes()) == [weight]


def test_code_beside_a_tokenizer_is_not_run(tmp_path):
    directory = tiny_models.make(tmp_path)
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["auto_map"] = {"AutoTokenizer": ["words.Mine", "words.Mine"]}
    path.write_text(json.dumps(settings))
    (directory / "words.py").write_text("raise SystemExit('this code ran')\n")
    assert models.load(directory).tokenizer.is_fast


@pytest.mark.parametrize("what", ["quantised", "code", "slow", "pickled"])
def test_what_cannot_be_edited_is_not_loaded_for_use_either(tmp_path, what):
    make, sentence = REFUSED[what]
    with pytest.raises(UnsupportedModelError, match=sentence):
        models.load_for_use(make(tmp_path))
