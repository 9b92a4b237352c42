"""Keys and states, read in one pass for all rows and averaged over contexts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from hubedit_rome.batches import Batch
from hubedit_rome.contexts import Context
from hubedit_rome.site import Site, doubles, doubles_on

import hubedit

TEXTS_AT_ONCE = 256
"""Texts in one forward pass."""


@dataclass(frozen=True)
class Weighed:
    """The texts that one key is the mean over, with their weights in it and in the mean state."""

    texts: Sequence[Context]
    key_weights: Sequence[float]
    state_weights: Sequence[float]


def weigh(
    bare: Sequence[Context], others: Sequence[Context], bare_weight: float, averaged: bool
) -> Weighed:
    """Weigh bare prompts against the contexts with a prefix: the mean of each kind, then of both.

    States are weighed as keys are, or with `averaged` false over one kind alone: the bare prompts,
    where there are some.
    """
    texts = [*bare, *others]
    if bare and others:
        keys = [bare_weight / len(bare)] * len(bare)
        keys += [(1 - bare_weight) / len(others)] * len(others)
    else:
        keys = [1 / len(texts)] * len(texts)
    if averaged or not bare:
        return Weighed(texts, keys, keys)
    return Weighed(texts, keys, [1 / len(bare)] * len(bare) + [0.0] * len(others))


@torch.no_grad()
def read(
    model: hubedit.EditableModel, site: Site, place: str, groups: Sequence[Weighed]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean key and the mean state of each group of texts, as the model is now.

    Args:
        site: the matrix whose inputs are the keys.
        place: name of the module whose outputs are the states; it is not before the matrix.

    Returns:
        Keys K [d_in, groups] and states [width, groups], both float64.
    """
    flat = [context for group in groups for context in group.texts]
    keys: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for start in range(0, len(flat), TEXTS_AT_ONCE):
        part = flat[start : start + TEXTS_AT_ONCE]
        batch = Batch.of(model, [shortened(model, context) for context in part])
        with ExitStack() as stack:
            after = stack.enter_context(model.trace(place, stop=True))
            matrix = stack.enter_context(model.trace(site.mlp_out))
            model.model(**batch.inputs)
        keys.append(doubles(batch.at_subjects(matrix.input)))
        states.append(doubles(batch.at_subjects(after.output)))
    device = doubles_on(model.device)
    weights = torch.zeros(2, len(flat), len(groups), dtype=torch.float64, device=device)
    start = 0
    for index, group in enumerate(groups):
        end = start + len(group.texts)
        for kind, own in enumerate((group.key_weights, group.state_weights)):
            weights[kind, start:end, index] = torch.tensor(own, dtype=torch.float64)
        start = end
    return torch.cat(keys).T @ weights[0], torch.cat(states).T @ weights[1]


def shortened(model: hubedit.EditableModel, context: Context) -> hubedit.Reading:
    """What has to be read for what stands at the subject.

    What follows the subject cannot change what a causal model holds there.
    """
    if model.layout.architecture != "causal":
        return context.reading
    return replace(context.reading, ids=context.reading.ids[: context.subject + 1])
