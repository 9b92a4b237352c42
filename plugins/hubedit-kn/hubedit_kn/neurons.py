"""Which neurons are a fact's: coarse by prompt, refined over prompts, in the order of strength."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import hubedit

STEP = 0.05
"""By how much the sharing percentage is moved, as published."""


@dataclass(frozen=True)
class Found:
    """A fact's neurons as (layer, index), strongest first.

    The first `refined` are those that the prompts share; the others follow by their mean
    attribution, as far as it is positive. `sharing` is the percentage that was used.
    """

    order: tuple[tuple[int, int], ...]
    refined: int
    sharing: float


def coarse(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """The neurons of one prompt: above a share of its largest attribution; bool, shaped as scores.

    Nothing is found where no attribution is positive.
    """
    highest = scores.max()
    return (scores > threshold * highest) & (scores > 0)


def refine(scores: torch.Tensor, threshold: float, sharing: float, fewest: int, most: int) -> Found:
    """The neurons that more than a share of a fact's prompts find.

    The share moves in steps of 0.05 until between `fewest` and `most` are left (Dai et al. 2022,
    section 3.3); of more the strongest stay.

    Args:
        scores: attributions of each prompt, float64 [prompts, layers, neurons].

    Raises:
        MethodError: no attribution is positive.
    """
    mean = scores.mean(0)
    votes = torch.stack([coarse(one, threshold) for one in scores]).double().mean(0)
    if not bool((mean > 0).any()) or not bool((votes > 0).any()):
        raise hubedit.MethodError("no neuron makes the answer likelier")

    def count(share: float) -> int:
        return int((votes > share).sum())

    steps = round(sharing / STEP)
    while count(steps * STEP) > most and (steps + 1) * STEP < 1:
        steps += 1
    while count(steps * STEP) < fewest and steps > 0:
        steps -= 1
    shared = votes > steps * STEP
    chosen = _strongest(mean, shared)[:most]
    rest = _strongest(mean, mean > 0)
    known = set(chosen)
    order = (*chosen, *(neuron for neuron in rest if neuron not in known))
    return Found(order, len(chosen), round(steps * STEP, 2))


def _strongest(mean: torch.Tensor, among: torch.Tensor) -> list[tuple[int, int]]:
    """Neurons as (layer, index) in the order of their attribution; of equal ones the first."""
    width = mean.shape[-1]
    flat = mean.flatten()
    order = torch.argsort(flat, descending=True, stable=True)
    kept = order[among.flatten()[order]]
    return [divmod(number, width) for number in kept.tolist()]
