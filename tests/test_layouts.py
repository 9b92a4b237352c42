"""The table of layouts names what the models have."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import tiny
import torch
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from hubedit.errors import UnsupportedModelError
from hubedit.layouts import LAYOUTS, Layout, layout_for

STACKS = [
    *((family, "first") for family in tiny.FAMILIES),
    *((family, "encoder") for family in tiny.SEQ2SEQ),
]


def stack_of(family: str, stack: str) -> Layout:
    layout = layout_for(family)
    return layout.encoder if stack == "encoder" else layout


def test_every_family_of_the_table_has_a_tiny_model():
    assert set(tiny.FAMILIES) == set(LAYOUTS)


@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_a_layout_names_modules_that_the_model_has(family, stack):
    model = tiny.build(family)
    layout = stack_of(family, stack)
    modules = dict(model.named_modules())
    assert layout.fitted(modules, None, model.config) == layout
    depth = 2 if family in tiny.SEQ2SEQ and stack == "first" else tiny.DEPTH
    assert layout.depth(model.config) == depth
    assert modules[layout.embeddings] is model.get_input_embeddings()
    assert modules[layout.head] is model.get_output_embeddings()
    assert layout.at("block", depth) not in modules


@pytest.mark.parametrize("family", tiny.SEQ2SEQ)
def test_of_two_stacks_the_layout_is_the_decoder_and_leads_to_the_encoder(family):
    model = tiny.build(family)
    layout = layout_for(family)
    for stack, part in ((layout, model.get_decoder()), (layout.encoder, model.get_encoder())):
        inside = {id(module) for module in part.modules()}
        assert id(model.get_submodule(stack.at("mlp_out", 1))) in inside
    weight = layout.encoder.mlp_out_weight(2)
    assert (layout.layer_of(weight), layout.module_of(weight)) == (2, "mlp")


@pytest.mark.parametrize("family", [*tiny.CAUSAL, *tiny.MASKED])
def test_a_model_of_one_stack_has_no_encoder(family):
    assert layout_for(family).encoder is None


@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_a_layout_knows_how_the_second_mlp_matrix_is_stored(family, stack):
    model = tiny.build(family)
    layout = stack_of(family, stack)
    module = model.get_submodule(layout.at("mlp_out", 1))
    assert isinstance(module, Conv1D) == layout.conv1d
    shape = (tiny.INNER, tiny.WIDTH) if layout.conv1d else (tiny.WIDTH, tiny.INNER)
    assert module.weight.shape == shape
    assert module.weight is model.get_parameter(layout.mlp_out_weight(1))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_parameter_belongs_to_a_part(family):
    model = tiny.build(family)
    layout = layout_for(family)
    parts = {name: layout.module_of(name) for name, _ in model.named_parameters()}
    assert parts[layout.mlp_out_weight(0)] == "mlp"
    assert parts[f"{layout.embeddings}.weight"] == "embeddings"
    assert set(parts.values()) >= {"mlp", "attention", "embeddings", "other"}
    assert layout.layer_of(layout.mlp_out_weight(1)) == 1
    assert layout.layer_of(f"{layout.embeddings}.weight") is None
    odd = [name for name, part in parts.items() if part == "other"]
    known = re.compile(r"norm|ln_|position|wpe|token_type|transform|head\.dense", re.IGNORECASE)
    assert all(known.search(name) for name in odd)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_whatever_has_a_row_for_each_token_belongs_to_embeddings_or_head(family):
    tokens = 67
    model = tiny.build(family, vocab_size=tokens)
    layout = layout_for(family)
    named = dict(model.named_parameters(remove_duplicate=False))
    rows = [name for name, parameter in named.items() if parameter.shape[0] == tokens]
    assert len(rows) >= 2
    assert {layout.module_of(name) for name in rows} == {"embeddings", "head"}


@pytest.mark.parametrize("family", [*tiny.CAUSAL, *tiny.MASKED, "bart"])
def test_a_layout_knows_how_long_a_text_may_be(family):
    model = tiny.build(family)
    most = layout_for(family).positions(model.config)
    assert most == 128
    given = {"decoder_input_ids": torch.ones(1, 1, dtype=torch.int64)} if family == "bart" else {}
    model(torch.ones(1, most, dtype=torch.int64), **given)


def test_relative_positions_do_not_limit_a_text():
    assert layout_for("t5").positions(tiny.build("t5").config) is None


def test_a_final_norm_that_only_some_sizes_have_is_none_where_it_lacks():
    model = tiny.build("opt", do_layer_norm_before=False, word_embed_proj_dim=16)
    layout = layout_for("opt").fitted(dict(model.named_modules()), "lm_head", model.config)
    assert layout.final_norm is None
    assert layout_for("opt").final_norm is not None


def test_an_unknown_family_is_told_which_ones_are_known():
    with pytest.raises(UnsupportedModelError) as caught:
        layout_for("mamba")
    assert "'mamba'" in str(caught.value)
    for family in LAYOUTS:
        assert family in str(caught.value)


def test_the_layer_to_edit_is_the_published_one_or_a_third_of_the_way_up():
    layout = layout_for("gpt2")
    config = AutoConfig.for_model("gpt2", n_layer=48)
    assert layout.edit_layer(config) == 17
    assert layout.edit_layer(AutoConfig.for_model("gpt2", n_layer=6)) == 2
    assert layout.edit_layer(AutoConfig.for_model("gpt2", n_layer=1)) == 0


def test_a_head_under_another_name_is_taken_from_the_model():
    model = tiny.build("gpt_neox")
    layout = replace(layout_for("gpt_neox"), head="embed_out")
    fitted = layout.fitted(dict(model.named_modules()), "lm_head", model.config)
    assert fitted.head == "lm_head"


def test_a_layout_that_names_a_missing_module_is_refused():
    model = tiny.build("llama")
    with pytest.raises(UnsupportedModelError, match=r"'transformer\.wte'"):
        layout_for("gpt2").fitted(dict(model.named_modules()), "lm_head", model.config)


def test_a_model_without_a_type_is_told_what_is_missing():
    with pytest.raises(UnsupportedModelError, match="names no model_type"):
        layout_for(None)
