"""The state a model must be in while it is trained, and as which its weights are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

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
