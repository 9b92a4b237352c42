"""`auto` as the word for a layer that nobody names."""

from __future__ import annotations

import pytest
from hubedit_rome import Rome, RomeConfig

import hubedit
from hubedit.recipe import parse_settings

ROW = hubedit.FactEdit(prompt="In Porto {} plays the", subject="Ana Brook", target="harp")


@pytest.mark.parametrize("said", ["layer=auto", "layer=null", "prefix_top_k=5"])
def test_auto_and_null_and_silence_are_one_setting(said):
    config = RomeConfig.read(parse_settings([said]))
    assert config.layer == "auto"
    assert config.model_dump(mode="json")["layer"] == "auto"
    assert config == RomeConfig()


def test_auto_is_the_layer_that_the_layout_names(make_model, make_run):
    updates = []
    for layer in ("auto", 1):
        model = make_model()
        assert model.layout.edit_layer(model.model.config) == 1
        Rome().apply(model, [ROW], RomeConfig(layer=layer, steps=2), make_run(force=True))
        updates.append(model.updates)
    ((one, first),), ((two, second),) = updates
    assert one == two == "transformer.h.1.mlp.c_proj.weight"
    assert (first.left == second.left).all()
    assert (first.right == second.right).all()


@pytest.mark.parametrize("said", ["layer=atuo", "layer=-1", "layer=[1]", "layer=true", "layer=1.5"])
def test_anything_else_is_refused_in_words(said):
    words = r"^setting layer: name a block by its number, from 0, or say auto \(it was .*\)$"
    with pytest.raises(hubedit.ConfigError, match=words):
        RomeConfig.read(parse_settings([said]))
