"""The table of layouts names what the models have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from hubedit.errors import UnsupportedModelError
from hubedit.layouts import LAYOUTS, layout_for


def build(family: str) -> torch.nn.Module:
    config = AutoConfig.for_model(family, vocab_size=64, **tiny.CONFIGS[family])
    return AutoModelForCausalLM.from_config(config)


def test_every_family_of_the_table_has_a_tiny_model():
    assert set(tiny.FAMILIES) == set(LAYOUTS)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_layout_names_modules_that_the_model_has(family):
    model = build(family)
    layout = layout_for(family)
    modules = dict(model.named_modules())
    assert layout.fitted(modules, None, model.config) == layout
    assert layout.depth(model.config) == tiny.DEPTH
    assert modules[layout.embeddings] is model.get_input_embeddings()
    assert modules[layout.head] is model.get_output_embeddings()
    assert layout.at("block", tiny.DEPTH) not in modules


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_layout_knows_how_the_second_mlp_matrix_is_stored(family):
    model = build(family)
    layout = layout_for(family)
    module = model.get_submodule(layout.at("mlp_out", 1))
    assert isinstance(module, Conv1D) == layout.conv1d
    shape = (tiny.INNER, tiny.WIDTH) if layout.conv1d else (tiny.WIDTH, tiny.INNER)
    assert module.weight.shape == shape
    assert module.weight is model.get_parameter(layout.mlp_out_weight(1))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_parameter_belongs_to_a_part(family):
    model = build(family)
    layout = layout_for(family)
    parts = {name: layout.module_of(name) for name, _ in model.named_parameters()}
    assert parts[layout.mlp_out_weight(0)] == "mlp"
    assert parts[f"{layout.embeddings}.weight"] == "embeddings"
    assert set(parts.values()) >= {"mlp", "attention", "embeddings", "other"}
    assert layout.layer_of(layout.mlp_out_weight(2)) == 2
    assert layout.layer_of(f"{layout.final_norm}.weight") is None


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
    model = build("gpt_neox")
    layout = replace(layout_for("gpt_neox"), head="embed_out")
    fitted = layout.fitted(dict(model.named_modules()), "lm_head", model.config)
    assert fitted.head == "lm_head"


def test_a_layout_that_names_a_missing_module_is_refused():
    model = build("llama")
    with pytest.raises(UnsupportedModelError, match=r"'transformer\.wte'"):
        layout_for("gpt2").fitted(dict(model.named_modules()), "lm_head", model.config)
