"""What is trained, how far it may go, and what is handed over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubedit_ft import Ft, FtConfig, FtL, FtLConfig, FtM, Lora, LoraConfig
from hubedit_ft.lora import beside, linear_modules

import hubedit

ROW = hubedit.FactEdit(prompt="{} plays the", subject="Ada Brook", target="oboe")


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.model.named_parameters()}


def changed(model, before):
    return {
        name
        for name, value in model.model.named_parameters()
        if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("method", [Ft, FtL, FtM], ids=lambda method: method.name)
def test_one_matrix_and_its_bias_are_trained_and_nothing_else(method, tiny, run):
    before = snapshot(tiny)
    config = method.config_type().read({"steps": 2, "layers": "auto"})
    assert config == method.config_type()(steps=2) == method.config_type()(steps=2, layers=None)
    method().apply(tiny, [ROW], config, run)
    matrix = tiny.layout.at("mlp_out", tiny.layout.edit_layer(tiny.model.config))
    assert changed(tiny, before) == {f"{matrix}.weight", f"{matrix}.bias"}


def test_the_bias_stays_if_it_is_told_to(tiny, run):
    before = snapshot(tiny)
    FtM().apply(tiny, [ROW], FtConfig(steps=2, bias=False, layers=(0, 2)), run)
    assert changed(tiny, before) == {tiny.layout.mlp_out_weight(layer) for layer in (0, 2)}


def test_the_steps_are_adams_on_the_rows_loss(tiny, run):
    """Three steps again with Adam written out, on the loss of a plain forward pass."""
    config = FtConfig(steps=3, stop_loss=0, layers=(1,), bias=False, learning_rate=0.01)
    FtM().apply(tiny, [ROW], config, run)
    made = tiny.weight(tiny.layout.mlp_out_weight(1)).detach().clone()
    tiny.restore()
    weight = tiny.weight(tiny.layout.mlp_out_weight(1)).requires_grad_(True)
    target = tiny.tokenizer(" oboe")["input_ids"]
    ids = torch.tensor([tiny.tokenizer("Ada Brook plays the oboe")["input_ids"]])
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 4):
        likely = tiny.model(ids).logits[0].log_softmax(-1)
        start = ids.shape[1] - len(target)
        loss = -torch.stack([likely[start - 1 + j, t] for j, t in enumerate(target)]).mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = (square / (1 - 0.999**step)).sqrt() + 1e-8
        with torch.no_grad():
            weight -= 0.01 * (mean / (1 - 0.9**step)) / unbiased
    # An element whose gradient is nothing but rounding takes a step of either sign.
    assert float((made - weight).abs().median()) < 1e-6
    assert float(((made - weight).abs() < 1e-4).float().mean()) > 0.99


@pytest.mark.parametrize("how", [{"max_change": 0.1}, {"absolute_change": 1e-3}])
def test_no_element_leaves_its_box(how, tiny, run):
    name = tiny.layout.mlp_out_weight(1)
    before = snapshot(tiny)[name]
    bound = how.get("absolute_change") or 0.1 * float(before.square().mean().sqrt())
    config = FtLConfig(layers=(1,), learning_rate=0.01, steps=4, stop_loss=0, **how)
    FtL().apply(tiny, [ROW], config, run)
    moved = (tiny.weight(name).detach() - before).abs()
    assert float(moved.max()) == pytest.approx(bound, rel=1e-3)
    assert float(moved.max()) <= bound * (1 + 1e-3)


def test_loras_delta_is_the_factors_that_were_trained(tiny, run):
    before = snapshot(tiny)
    Lora().apply(tiny, [ROW], LoraConfig(rank=3, steps=3, modules="mlp", layers=(1,)), run)
    changes = tiny.changes()
    names = {tiny.layout.mlp_out_weight(1), tiny.layout.at("mlp", 1) + ".c_fc.weight"}
    assert set(changes) == names == changed(tiny, before)
    for name, [update] in changes.items():
        assert update.rank == 3
        moved = (tiny.weight(name).detach() - before[name]).numpy()
        assert np.abs(moved - update.left @ update.right).max() < 1e-6


def test_the_model_beside_its_factors_says_what_the_merged_one_says(tiny):
    ids = torch.tensor([[5, 9, 40, 41]])
    generator = torch.Generator().manual_seed(1)
    config = LoraConfig(rank=2, alpha=6)
    with beside(tiny, config, generator) as factors, torch.no_grad():
        merged = {}
        for name, (a, b) in factors.items():
            b.normal_(0, 0.05, generator=generator)
            merged[name] = 3.0 * (b @ a).T
        adapted = tiny.model(ids).logits
    with torch.no_grad():
        for name, change in merged.items():
            tiny.weight(f"{name}.weight").add_(change)
        assert torch.allclose(tiny.model(ids).logits, adapted, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"layers": (7,)}, "layers 0 to 2"), ({"layers": ()}, "set layers"), ({"rank": 99}, "side")],
)
def test_what_does_not_fit_the_model_is_refused(settings, said, tiny, run):
    before = list(dict(tiny.model.named_modules()))
    with pytest.raises(hubedit.ConfigError, match=said):
        Lora().apply(tiny, [ROW], LoraConfig(**settings), run)
    assert list(dict(tiny.model.named_modules())) == before


def test_lora_lies_beside_every_linear_module_of_the_blocks(tiny):
    every = linear_modules(tiny, LoraConfig())
    assert len(every) == 4 * tiny.layout.depth(tiny.model.config)
    attention = linear_modules(tiny, LoraConfig(modules="attention", layers=(2,)))
    assert set(attention) == {f"transformer.h.2.attn.{part}" for part in ("c_attn", "c_proj")}


@pytest.mark.parametrize("settings", [{}, {"modules": "attention", "layers": (0, 2)}])
def test_what_lora_will_change_is_known_before(settings, tiny, run):
    shapes = {name: tuple(value.shape) for name, value in tiny.model.named_parameters()}
    config = LoraConfig(rank=2, steps=2, **settings)
    predicted = Lora.predict(tiny.layout, shapes, [ROW], config)
    Lora().apply(tiny, [ROW], config, run)
    made = {name: sum(one.rank for one in updates) for name, updates in tiny.changes().items()}
    assert made == predicted


def test_ft_says_what_it_changes_where_it_can(tiny):
    assert Ft().targets(tiny.layout, FtConfig(layers=(1,))) is None
    assert Ft().targets(tiny.layout, FtConfig(bias=False)) is None
    told = Ft().targets(tiny.layout, FtConfig(layers=(1,), bias=False))
    assert told == [tiny.layout.mlp_out_weight(1)]


@pytest.mark.parametrize("method", [Ft, FtL, FtM], ids=lambda method: method.name)
def test_a_layer_that_is_not_there_is_refused(method, tiny, run):
    with pytest.raises(hubedit.ConfigError, match="layers 0 to 2"):
        method().apply(tiny, [ROW], method.config_type()(layers=(3,)), run)


def test_a_rate_that_breaks_the_model_is_named(tiny, run):
    with pytest.raises(hubedit.HubEditError, match="learning_rate"):
        FtM().apply(tiny, [ROW], FtConfig(learning_rate=1e30, stop_loss=0), run)
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
