"""What can be loaded, for editing and for use, and how the rest is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubedit import models
from hubedit.delta import Delta, encode
from hubedit.errors import (
    ConfigError,
    UnmappedTensorError,
    UnsupportedModelError,
)
from hubedit.layouts import LAYOUTS
from hubedit.mapping import from_torch, same_bits, to_torch
from hubedit.shards import materialize

MLP = "transformer.h.1.mlp.c_proj.weight"
EMBEDDINGS = "transformer.wte.weight"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("gpt2"))


def test_an_unknown_family_is_told_which_ones_are_known(tmp_path):
    directory = tiny.make(tmp_path)
    tiny.set_config(directory, model_type="gpt99")
    with pytest.raises(UnsupportedModelError) as caught:
        models.load(directory)
    assert all(family in str(caught.value) for family in LAYOUTS)


def test_a_quantised_checkpoint_is_refused_with_the_way_out(tmp_path):
    directory = tiny.make(tmp_path)
    tiny.set_config(directory, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModelError, match=r"gptq.*then quantise the result"):
        models.load(directory)


def test_a_model_with_code_of_its_own_is_refused(tmp_path):
    directory = tiny.make(tmp_path)
    tiny.set_config(directory, auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    with pytest.raises(UnsupportedModelError, match="auto_map"):
        models.load(directory)


def test_pickled_weights_are_refused(tmp_path):
    directory = tiny.make(tmp_path)
    torch.save(tiny.read_tensors(directory), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model\.bin alone.*save_pretrained"):
        models.load(directory)


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    directory = tiny.make(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        models.load(directory)


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"no config\.json"):
        models.load(tmp_path)


def test_incomplete_files_are_refused(tmp_path):
    directory = tiny.make(tmp_path)
    tensors = tiny.read_tensors(directory)
    del tensors[MLP]
    tiny.write_tensors(directory, tensors)
    with pytest.raises(UnmappedTensorError, match=r"lack 'transformer\.h\.1\.mlp\.c_proj\.weight'"):
        models.load(directory)


def test_an_unknown_dtype_or_device_is_refused(gpt2):
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        models.load(gpt2, dtype="bfloat")
    with pytest.raises(ConfigError, match="the device 'nonsense'"):
        models.load(gpt2, device="nonsense")


WATCHED = """
import sys

opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event == "socket.connect" else None)
from hubedit import models

assert models.load(sys.argv[1]).generate(["Ada"], 1)
print(opened)
import socket

with socket.socket() as probe:
    probe.connect_ex(("127.0.0.1", 9))
print(opened)
"""


def test_loading_opens_no_connection(gpt2):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, gpt2], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "['socket.connect']"]


def test_loading_writes_nothing_to_the_terminal(gpt2, capfd):
    models.load(gpt2)
    assert capfd.readouterr() == ("", "")


def test_a_model_for_use_does_not_change_with_its_file(gpt2, tmp_path):
    directory = tiny.make(tmp_path)
    used, _ = models.load_for_use(directory)
    before = {name: value.clone() for name, value in used.state_dict().items()}
    weights = directory / "model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\x11" * (size // 2))
    assert all(torch.equal(value, before[name]) for name, value in used.state_dict().items())


VARIANTS = [
    *((family, {}) for family in tiny.FAMILIES),
    ("gpt2", {"sharded": True, "dtype": torch.bfloat16}),
    ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False, "tied": True}),
    ("gptj", {"dtype": torch.float16}),
    ("gemma", {"sharded": True, "dtype": torch.bfloat16, "tied": True}),
    ("bert", {"sharded": True, "dtype": torch.bfloat16}),
    ("roberta", {"tied": False}),
    ("t5", {"sharded": True, "dtype": torch.bfloat16}),
    ("t5", {"feed_forward_proj": "gated-gelu"}),
    ("t5", {"dtype": torch.float16}),
    ("bart", {"sharded": True, "dtype": torch.bfloat16}),
]


@pytest.mark.parametrize(("family", "how"), VARIANTS)
def test_an_edit_of_any_family_comes_back_bit_for_bit(tmp_path, family, how):
    directory = tiny.make(tmp_path / "base", family, **how)
    model = models.load(directory)
    layout = model.layout
    parameters = [layout.mlp_out_weight(1)]
    if layout.encoder is not None:
        parameters.append(layout.encoder.mlp_out_weight(2))
    for parameter in parameters:
        model.update(parameter, tiny.factors(*model.weight(parameter).shape, rank=2))
    changes = model.changes()
    assert [model.parameter_of(name) for name in changes] == sorted(parameters)
    encoded = encode(changes, model.start)
    assert {choice.kind for choice in encoded.choices} == {"low_rank"}

    (tmp_path / "delta.safetensors").write_bytes(encoded.delta.to_bytes())
    delta = Delta.read(tmp_path / "delta.safetensors")
    rebuilt = {name: delta.apply(name, model.checkpoint.read(name)) for name in delta}
    assert {name: tensor.sha256() for name, tensor in rebuilt.items()} == {
        name: tensor.sha256() for name, tensor in encoded.after.items()
    }
    whole = tmp_path / "whole"
    materialize(directory, whole, rebuilt)

    before, after = tiny.read_tensors(directory), tiny.read_tensors(whole)
    assert {name for name in before if not same_bits(before[name], after[name])} == set(changes)
    plain = tiny.auto_class(family).from_pretrained(whole)
    used, _ = models.load_for_use(directory, rebuilt)
    model.restore()
    for name, value in rebuilt.items():
        model.set_tensor(name, value)
    for (name, one), (_, other) in zip(
        plain.named_parameters(), used.named_parameters(), strict=True
    ):
        assert same_bits(one.detach(), other.detach()), name
        assert same_bits(one.detach().float(), model.weight(name).detach()), name
    for name, tensor in rebuilt.items():
        stored = to_torch(tensor)
        live = plain.get_parameter(model.parameter_of(name)).detach()
        assert same_bits(live, stored.to(live.dtype)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_for_use_holds_the_edited_tensors_exactly(tmp_path, dtype):
    directory = tiny.make(tmp_path / "base", tied=True, rename=tiny.without_prefix, dtype=dtype)
    kind = {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype]
    new = torch.randn(tiny.INNER, tiny.WIDTH).to(dtype)
    overlay = {"h.1.mlp.c_proj.weight": from_torch(new, kind)}
    used, words = models.load_for_use(directory, overlay)
    assert same_bits(used.get_parameter(MLP).detach(), new)
    tensors = tiny.read_tensors(directory) | {"h.1.mlp.c_proj.weight": new}
    tiny.write_tensors(directory, tensors)
    plain = AutoModelForCausalLM.from_pretrained(directory)
    for (name, one), (_, other) in zip(
        used.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert same_bits(one.detach(), other.detach()), name
    assert words("Ada")["input_ids"] == AutoTokenizer.from_pretrained(directory)("Ada")["input_ids"]


def test_a_model_for_use_refuses_tensors_it_does_not_have(gpt2):
    with pytest.raises(UnmappedTensorError, match=r"'model\.nothing'"):
        models.load_for_use(gpt2, {"model.nothing": from_torch(torch.zeros(2), "F32")})


def test_a_text_that_ends_in_the_padding_token_brings_no_advice(tiny, caplog):
    model = models.load(tiny)
    end = model.tokenizer.eos_token_id
    model.model.config.pad_token_id = end
    ids = torch.tensor([[end, end]])
    with caplog.at_level("WARNING", logger="transformers"):
        logging.getLogger("transformers").addHandler(caplog.handler)
        try:
            model.model(input_ids=ids)
        finally:
            logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "attention_mask" not in caplog.text
