"""One accessor for what passes through a module, whatever the family returns."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hubedit.errors import UnsupportedModelError
from hubedit.layouts import layout_for
from hubedit.tracing import trace

IDS = torch.tensor([[5, 9, 2, 7], [1, 1, 3, 8]])
PARTS = ("block", "attention", "mlp", "mlp_out")


def build(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=64, **tiny.CONFIGS[family])
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def hooks(model: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_trace_reads_input_and_output(family, part):
    model = build(family)
    before = hooks(model)
    with trace(model, layout_for(family).at(part, 1)) as seen:
        model(IDS)
    inner = tiny.INNER if part == "mlp_out" else tiny.WIDTH
    assert seen.input.shape == (2, 4, inner)
    assert seen.output.shape == (2, 4, tiny.WIDTH)
    assert hooks(model) == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_block_output_is_the_hidden_state_the_model_reports(family):
    model = build(family)
    with trace(model, layout_for(family).at("block", 0)) as seen:
        states = model(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(seen.output, states[1])
    assert torch.equal(seen.input, states[0])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_replaced_output_is_what_the_rest_of_the_model_sees(family, part):
    model = build(family)
    plain = model(IDS).logits

    def nudged(hidden: torch.Tensor) -> torch.Tensor:
        changed = hidden.clone()
        changed[:, 2] += 1.5
        return changed

    with trace(model, layout_for(family).at(part, 1), replace_output=nudged) as seen:
        logits = model(IDS).logits
    assert seen.output.shape == (2, 4, tiny.WIDTH)
    assert torch.equal(logits[:, :2], plain[:, :2])
    assert not torch.equal(logits[:, 2:], plain[:, 2:])
    assert torch.equal(model(IDS).logits, plain)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_replaced_input_is_what_the_module_sees(family, part):
    model = build(family)
    name = layout_for(family).at(part, 1)
    with trace(model, name, replace_input=torch.zeros_like) as silenced:
        silent = model(IDS).logits
    assert not silenced.input.any()
    assert not torch.equal(silent, model(IDS).logits)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stop_ends_the_forward_pass_after_the_module(family):
    model = build(family)
    before = hooks(model)
    layout = layout_for(family)
    with (
        trace(model, layout.at("block", 2)) as later,
        trace(model, layout.at("block", 1), stop=True) as seen,
    ):
        model(IDS)
    assert seen.output is not None
    assert later.output is None
    assert hooks(model) == before
    assert model(IDS).logits.shape == (2, 4, 64)


def test_an_outer_stop_passes_through_an_inner_trace():
    model = build("llama")
    after_inner = False
    with trace(model, "model.layers.1", stop=True) as outer:
        with trace(model, "model.layers.0") as inner:
            model(IDS)
        after_inner = True
    assert outer.output is not None
    assert inner.output is not None
    assert not after_inner


def test_hooks_are_removed_when_the_body_raises():
    model = build("gpt2")
    before = hooks(model)
    with pytest.raises(KeyError), trace(model, "transformer.h.0"):
        raise KeyError("from the body")
    assert hooks(model) == before


def test_hooks_are_removed_when_a_replacement_raises():
    model = build("gpt2")
    before = hooks(model)

    def broken(hidden: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), trace(model, "transformer.h.0", replace_output=broken):
        model(IDS)
    assert hooks(model) == before
    assert model(IDS).logits.shape == (2, 4, 64)


def test_gradients_reach_a_replacement():
    model = build("qwen3")
    shift = torch.zeros(tiny.WIDTH, requires_grad=True)
    with trace(model, "model.layers.1.mlp", replace_output=lambda hidden: hidden + shift):
        model(IDS).logits.logsumexp(-1).sum().backward()
    assert shift.grad.abs().sum() > 0


def test_a_missing_module_is_named():
    with (
        pytest.raises(UnsupportedModelError, match=r"transformer\.h\.99"),
        trace(build("gpt2"), "transformer.h.99"),
    ):
        pass


def test_a_module_without_hidden_states_is_refused():
    model = build("llama")
    with pytest.raises(UnsupportedModelError, match="not hidden states"), trace(model, "model"):
        model(IDS)
