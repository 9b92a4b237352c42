"""One accessor for what passes through a module, whatever the family returns."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from hubedit.errors import UnsupportedModelError
from hubedit.layouts import Layout, layout_for
from hubedit.tracing import trace

IDS = torch.tensor([[5, 9, 2, 7], [1, 1, 3, 8]])
PARTS = ("block", "attention", "mlp", "mlp_out")


STACKS = [
    *((family, "first") for family in tiny.FAMILIES),
    *((family, "encoder") for family in tiny.SEQ2SEQ),
]


def build(family: str) -> torch.nn.Module:
    return tiny.build(family).requires_grad_(False)


def stack_of(family: str, stack: str) -> Layout:
    layout = layout_for(family)
    return layout.encoder if stack == "encoder" else layout


def forward(model: torch.nn.Module, **more: Any) -> Any:
    """One forward pass over the same tokens, in encoder and decoder alike."""
    if model.config.is_encoder_decoder:
        more["decoder_input_ids"] = IDS
    return model(IDS, **more)


def hooks(model: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_a_trace_reads_input_and_output(family, stack, part):
    model = build(family)
    layout = stack_of(family, stack)
    before = hooks(model)
    with trace(model, layout.at(part, 1)) as seen:
        forward(model)
    inner = tiny.INNER if layout.at(part, 1) == layout.at("mlp_out", 1) else tiny.WIDTH
    assert seen.input.shape == (2, 4, inner)
    assert seen.output.shape == (2, 4, tiny.WIDTH)
    assert hooks(model) == before


@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_the_block_output_is_the_hidden_state_the_model_reports(family, stack):
    model = build(family)
    with trace(model, stack_of(family, stack).at("block", 0)) as seen:
        reported = forward(model, output_hidden_states=True)
    prefix = {"encoder": "encoder_", "first": "decoder_"}[stack]
    states = reported[(prefix if family in tiny.SEQ2SEQ else "") + "hidden_states"]
    assert torch.equal(seen.output, states[1])
    assert torch.equal(seen.input, states[0])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_a_replaced_output_is_what_the_rest_of_the_model_sees(family, stack, part):
    model = build(family)
    plain = forward(model).logits

    def nudged(hidden: torch.Tensor) -> torch.Tensor:
        changed = hidden.clone()
        changed[:, 2] += 1.5
        return changed

    with trace(model, stack_of(family, stack).at(part, 1), replace_output=nudged) as seen:
        logits = forward(model).logits
    assert seen.output.shape == (2, 4, tiny.WIDTH)
    if family not in tiny.MASKED and stack != "encoder":
        assert torch.equal(logits[:, :2], plain[:, :2])
    assert not torch.equal(logits[:, 2:], plain[:, 2:])
    assert torch.equal(forward(model).logits, plain)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_a_replaced_input_is_what_the_module_sees(family, stack, part):
    model = build(family)
    name = stack_of(family, stack).at(part, 1)
    with trace(model, name, replace_input=torch.zeros_like) as silenced:
        silent = forward(model).logits
    assert not silenced.input.any()
    assert not torch.equal(silent, forward(model).logits)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stop_ends_the_forward_pass_after_the_module(family):
    model = build(family)
    before = hooks(model)
    layout = layout_for(family)
    with (
        trace(model, layout.at("block", 1)) as later,
        trace(model, layout.at("block", 0), stop=True) as seen,
    ):
        forward(model)
    assert seen.output is not None
    assert later.output is None
    assert hooks(model) == before
    assert forward(model).logits.shape == (2, 4, 64)


def test_an_outer_stop_passes_through_an_inner_trace():
    model = build("llama")
    after_inner = False
    with trace(model, "model.layers.1", stop=True) as outer:
        with trace(model, "model.layers.0") as inner:
            forward(model)
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
        forward(model)
    assert hooks(model) == before
    assert forward(model).logits.shape == (2, 4, 64)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_reach_a_replacement(family):
    model = build(family)
    shift = torch.zeros(tiny.WIDTH, requires_grad=True)
    mlp = layout_for(family).at("mlp", 1)
    with trace(model, mlp, replace_output=lambda hidden: hidden + shift):
        forward(model).logits.logsumexp(-1).sum().backward()
    assert shift.grad.abs().sum() > 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_reach_what_was_read(family):
    model = build(family)
    layout = layout_for(family)
    model.get_parameter(layout.mlp_out_weight(0)).requires_grad_(True)
    with trace(model, layout.at("mlp_out", 0)) as seen:
        loss = forward(model).logits.logsumexp(-1).sum()
    (gradient,) = torch.autograd.grad(loss, seen.output)
    assert gradient.shape == (2, 4, tiny.WIDTH)
    assert gradient.abs().sum() > 0


def test_a_flattened_module_is_read_in_the_shape_of_each_forward_pass():
    model = build("opt")
    with trace(model, "model.decoder.layers.1.fc2") as seen:
        model(IDS)
        model(input_ids=IDS.reshape(4, 2))
        assert seen.output.shape == (4, 2, tiny.WIDTH)
        model(inputs_embeds=torch.zeros(1, 3, tiny.WIDTH))
        assert seen.output.shape == (1, 3, tiny.WIDTH)
    states = model(IDS, output_hidden_states=True).hidden_states
    with (
        trace(model, "model.decoder.layers.0.fc2", replace_output=torch.zeros_like),
        trace(model, "model.decoder.layers.0") as block,
    ):
        model(IDS)
    assert block.output.shape == states[1].shape
    assert not torch.equal(block.output, states[1])


def test_a_missing_module_is_named():
    with (
        pytest.raises(UnsupportedModelError, match=r"transformer\.h\.99"),
        trace(build("gpt2"), "transformer.h.99"),
    ):
        pass


def test_a_module_without_hidden_states_is_refused():
    model = build("llama")
    with pytest.raises(UnsupportedModelError, match="not hidden states"), trace(model, "model"):
        forward(model)
