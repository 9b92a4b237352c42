"""The state a model must be in while it is trained, and as which its weights are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

import hubedit
from hubedit_unlearn.adaptation import Trained

NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def as_found(model: torch.nn.Module) -> Iterator[None]:
    """Put modes, gradients and `requires_grad` back afterwards; meanwhile all are off.

    Training runs in evaluation mode: dropout would make the same request give another result.
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [(item, item.requires_grad, item.grad) for item in model.parameters()]
    model.eval()
    for parameter, _, _ in kept:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, wanting, gradient in kept:
            parameter.requires_grad_(wanting)
            parameter.grad = gradient
        for module, was in modes:
            module.training = was


@contextmanager
def recomputing(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Let blocks compute their activations again in the backward pass, if `wanted`.

    transformers does so for modules in training mode alone: the blocks are put into it by
    themselves, so that dropout within them stays off.

    Raises:
        UnsupportedModelError: the model's blocks cannot.
    """
    if not wanted:
        yield
        return
    blocks = [item for item in model.modules() if isinstance(item, GradientCheckpointingLayer)]
    if not blocks:
        raise hubedit.UnsupportedModelError(
            f"the blocks of {type(model).__name__} cannot compute their activations again; set "
            "activation_checkpointing=false"
        )
    again = partial(checkpoint, use_reentrant=False)
    settings = {"gradient_checkpointing": True, "_gradient_checkpointing_func": again}
    kept = [
        {name: vars(block)[name] for name in settings if name in vars(block)} for block in blocks
    ]
    for block in blocks:
        vars(block).update(settings)
        block.training = True
    try:
        yield
    finally:
        for block, before in zip(blocks, kept, strict=True):
            for name in settings.keys() - before.keys():
                del vars(block)[name]
            vars(block).update(before)
            block.training = False


def stored_dtype(parameters: Iterable[torch.Tensor]) -> torch.dtype:
    """The narrowest dtype that holds every value: that of the files they were read from."""
    values = list(parameters)
    for dtype in NARROW:
        if all(torch.equal(value, value.to(dtype).to(value.dtype)) for value in values):
            return dtype
    return torch.float32


@contextmanager
def as_stored(trained: Trained, dtype: torch.dtype) -> Iterator[None]:
    """Give the model its weights as rounded to `dtype`, then the same bits back."""
    with torch.no_grad():
        kept = []
        try:
            for tensor, value in trained.stored():
                kept.append((tensor, tensor.detach().clone()))
                tensor.copy_(value.to(dtype))
            yield
        finally:
            for tensor, before in kept:
                tensor.copy_(before)
