"""Every parameter is exactly one stored tensor, proved by bits, or the model is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from hubedit import models
from hubedit.errors import (
    UnmappedTensorError,
)
from hubedit.mapping import prove, same_bits
from hubedit.shards import Checkpoint, DirectorySource

MLP = "transformer.h.1.mlp.c_proj.weight"
EMBEDDINGS = "transformer.wte.weight"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_parameter_is_one_stored_tensor(tmp_path, family, sharded):
    loaded = models.load(tiny.make(tmp_path, family, sharded=sharded))
    parameters = dict(loaded.model.named_parameters(remove_duplicate=False))
    assert set(loaded.tensors.tensor_of) == set(parameters)
    stored = tiny.read_tensors(tmp_path)
    assert set(loaded.tensors.names_of) == set(stored)
    for name, parameter in parameters.items():
        assert same_bits(parameter.detach(), stored[loaded.tensors.tensor_of[name]])
        assert not parameter.requires_grad
    assert not loaded.model.training


def test_gpt2_files_without_the_prefix_are_mapped(tmp_path):
    mask = torch.ones(1, 1, 128, 128).tril()
    directory = tiny.make(
        tmp_path, rename=tiny.without_prefix, tied=True, extra={"h.0.attn.bias": mask}
    )
    loaded = models.load(directory)
    assert loaded.tensors.tensor_of[MLP] == "h.1.mlp.c_proj.weight"
    assert loaded.parameter_of("wte.weight") == EMBEDDINGS
    with pytest.raises(UnmappedTensorError, match=r"h\.0\.attn\.bias"):
        loaded.parameter_of("h.0.attn.bias")


@pytest.mark.parametrize("head", ["embed_out", "lm_head"])
def test_a_neox_head_is_found_under_either_name(tmp_path, head):
    directory = tiny.make(tmp_path, "gpt_neox", rename=lambda name: name.replace("lm_head", head))
    loaded = models.load(directory)
    assert loaded.tensors.tensor_of[f"{loaded.layout.head}.weight"] == f"{head}.weight"
    assert loaded.layout.module_of(loaded.parameter_of(f"{head}.weight")) == "head"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_tied_head_is_an_alias_of_the_embeddings(tmp_path, family):
    loaded = models.load(tiny.make(tmp_path, family, tied=True))
    head, embeddings = f"{loaded.layout.head}.weight", f"{loaded.layout.embeddings}.weight"
    tensor = loaded.tensors.tensor_of[embeddings]
    assert loaded.tensors.tensor_of[head] == tensor
    assert loaded.parameter_of(tensor) == embeddings
    assert head in loaded.aliases(tensor)
    assert len(loaded.aliases(tensor)) == (3 if family in tiny.SEQ2SEQ else 1)
    assert loaded.aliases(loaded.tensors.tensor_of[loaded.layout.mlp_out_weight(0)]) == ()


@pytest.mark.parametrize("head", ["cls.predictions.bias", "cls.predictions.decoder.bias"])
def test_a_bert_head_bias_is_found_under_either_name(tmp_path, head):
    directory = tiny.make(
        tmp_path, "bert", rename=lambda name: name.replace("cls.predictions.bias", head)
    )
    loaded = models.load(directory)
    assert loaded.layout.module_of(loaded.parameter_of(head)) == "head"
    assert len(loaded.aliases(head)) == 1


def test_the_first_names_of_bert_norms_are_found_by_their_bits(tmp_path):
    def first(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    model = tiny.build("bert", vocab_size=len(tiny.framed("bert")))
    generator = torch.Generator().manual_seed(3)
    norms = {
        first(name): torch.randn(value.shape, generator=generator)
        for name, value in model.named_parameters()
        if "LayerNorm" in name
    }
    loaded = models.load(tiny.make(tmp_path, "bert", rename=first, extra=norms))
    for name, stored in loaded.tensors.tensor_of.items():
        assert stored == first(name) or name.startswith("cls.predictions.decoder.")
    assert same_bits(
        loaded.weight("bert.encoder.layer.2.output.LayerNorm.bias"),
        norms["bert.encoder.layer.2.output.LayerNorm.beta"],
    )


@pytest.mark.parametrize("prefix", ["", "model."])
def test_bart_files_may_hold_every_end_of_the_shared_embeddings(tmp_path, prefix):
    directory = tiny.make(tmp_path, "bart", rename=lambda name: name.replace("model.", prefix, 1))
    stored = tiny.read_tensors(directory)
    whole = stored[f"{prefix}shared.weight"]
    ends = [f"{prefix}encoder.embed_tokens.weight", f"{prefix}decoder.embed_tokens.weight"]
    bias = {"final_logits_bias": torch.zeros(1, len(whole))}
    tiny.write_tensors(directory, {**stored, **bias, **{end: whole.clone() for end in ends}})
    loaded = models.load(directory)
    update = tiny.factors(*whole.shape)
    loaded.update("model.shared.weight", update)
    assert loaded.changes() == {key: [update] for key in [*ends, f"{prefix}shared.weight"]}
    for name in loaded.changes():
        assert loaded.layout.module_of(loaded.parameter_of(name)) == "embeddings"
    with pytest.raises(UnmappedTensorError, match="final_logits_bias"):
        loaded.parameter_of("final_logits_bias")


@pytest.mark.parametrize("ends", [(), ("encoder", "decoder")])
def test_a_t5_head_of_its_own_is_not_the_shared_embeddings(tmp_path, ends):
    directory = tiny.make(tmp_path, "t5", feed_forward_proj="gated-gelu")
    tiny.set_config(directory, tie_word_embeddings=False)
    stored = tiny.read_tensors(directory)
    whole = stored["shared.weight"]
    stored |= {f"{end}.embed_tokens.weight": whole.clone() for end in ends}
    tiny.write_tensors(directory, {**stored, "lm_head.weight": torch.randn(whole.shape)})
    loaded = models.load(directory)
    loaded.update("lm_head.weight", tiny.factors(*whole.shape))
    assert list(loaded.changes()) == ["lm_head.weight"]
    assert loaded.aliases("lm_head.weight") == ()
    assert "decoder.embed_tokens.weight" in loaded.tensors.names("shared.weight")


def test_files_that_hold_both_ends_of_a_tie_change_both(tmp_path):
    directory = tiny.make(tmp_path, "llama", tied=True)
    stored = tiny.read_tensors(directory)
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    tiny.write_tensors(directory, stored)
    loaded = models.load(directory)
    update = tiny.factors(*stored["lm_head.weight"].shape)
    loaded.update("model.embed_tokens.weight", update)
    assert loaded.changes() == {
        "lm_head.weight": [update],
        "model.embed_tokens.weight": [update],
    }
    assert loaded.parameter_of("lm_head.weight") == "lm_head.weight"
    assert loaded.aliases("lm_head.weight") == ("model.embed_tokens.weight",)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_widened_exactly(tmp_path, dtype):
    loaded = models.load(tiny.make(tmp_path, "qwen3", dtype=dtype))
    stored = tiny.read_tensors(tmp_path)
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert stored[name].dtype == dtype
        assert torch.equal(parameter, stored[name].float())


def test_the_working_dtype_can_be_the_stored_one(tmp_path):
    loaded = models.load(tiny.make(tmp_path, dtype=torch.bfloat16), dtype="bfloat16")
    assert loaded.weight(MLP).dtype == torch.bfloat16
    assert loaded.changes() == {}


def test_tensors_that_no_parameter_uses_are_left_alone(tmp_path):
    extra = {"mtp.layers.0.norm.weight": torch.ones(tiny.WIDTH)}
    loaded = models.load(tiny.make(tmp_path, "qwen2", extra=extra))
    assert "mtp.layers.0.norm.weight" not in loaded.tensors.names_of
    assert loaded.changes() == {}


def test_a_file_altered_after_loading_is_not_the_model(tmp_path):
    loaded = models.load(tiny.make(tmp_path))
    live = loaded.weight(MLP).clone()
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    with safe_open(weights, framework="np") as stored:
        at = content.index(stored.get_tensor(MLP).tobytes())
    with weights.open("r+b") as file:
        file.seek(at + 400)
        file.write(bytes([content[at + 400] ^ 1]))
    assert torch.equal(loaded.weight(MLP), live)
    with pytest.raises(UnmappedTensorError, match=r"h\.1\.mlp\.c_proj\.weight.*bit for bit"):
        prove(loaded.model, Checkpoint.open(DirectorySource(tmp_path)))


def renamed(tmp_path: Path, rename: dict[str, str], **changed: torch.Tensor) -> Checkpoint:
    """The files of a model with other names, as if loading had renamed them."""
    tensors = {name: value.clone() for name, value in tiny.read_tensors(tmp_path).items()}
    stored = {}
    for name, value in tensors.items():
        for old, new in rename.items():
            name = name.replace(old, new)
        stored[name] = changed.get(name, value)
    target = tmp_path / "renamed"
    target.mkdir()
    tiny.write_tensors(target, stored)
    return Checkpoint.open(DirectorySource(target))


def test_renamed_tensors_are_found_by_their_bits_and_told_apart_by_their_names(tmp_path):
    directory = tiny.make(tmp_path, "llama")
    plain = AutoModelForCausalLM.from_pretrained(directory)
    files = renamed(directory, {"model.layers": "decoder.blocks", "self_attn": "attn"})
    tensors = prove(plain, files)
    norm = "model.layers.2.input_layernorm.weight"
    assert bool((plain.get_parameter(norm) == 1).all())
    assert tensors.tensor_of[norm] == "decoder.blocks.2.input_layernorm.weight"
    query = "model.layers.0.self_attn.q_proj.weight"
    assert tensors.tensor_of[query] == "decoder.blocks.0.attn.q_proj.weight"
    assert len(tensors.names_of) == len(list(plain.parameters()))


def test_equal_bits_whose_names_do_not_decide_are_refused(tmp_path):
    directory = tiny.make(tmp_path, "llama")
    plain = AutoModelForCausalLM.from_pretrained(directory)
    rename = {"input_layernorm.weight": "a.scale", "post_attention_layernorm.weight": "b.scale"}
    files = renamed(directory, rename)
    with pytest.raises(UnmappedTensorError, match="their names do not decide"):
        prove(plain, files)


def test_a_parameter_merged_from_several_tensors_is_refused(tmp_path):
    directory = tiny.make(tmp_path, "llama")
    plain = AutoModelForCausalLM.from_pretrained(directory)
    tensors = tiny.read_tensors(directory)
    whole = tensors.pop("model.layers.0.mlp.down_proj.weight")
    tensors["first"], tensors["second"] = whole[:16].clone(), whole[16:].clone()
    (tmp_path / "split").mkdir()
    tiny.write_tensors(tmp_path / "split", tensors)
    with pytest.raises(UnmappedTensorError, match=r"layers\.0\.mlp\.down_proj.*merges"):
        prove(plain, Checkpoint.open(DirectorySource(tmp_path / "split")))


def test_two_parameters_never_share_a_tensor(tmp_path):
    directory = tiny.make(tmp_path, "llama")
    tensors = tiny.read_tensors(directory)
    one, other = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight"
    tensors[other] = tensors[one].clone()
    tiny.write_tensors(directory, tensors)
    plain = AutoModelForCausalLM.from_pretrained(directory)
    merged = {name: value for name, value in tensors.items() if name not in (one, other)}
    merged["model.layers.0.mlp.both.weight"] = tensors[one]
    (tmp_path / "merged").mkdir()
    tiny.write_tensors(tmp_path / "merged", merged)
    with pytest.raises(UnmappedTensorError, match="share tensors between"):
        prove(plain, Checkpoint.open(DirectorySource(tmp_path / "merged")))
