"""The losses of the family, by the name of their method; needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import hubedit
from hubedit_unlearn.config import GradDiffConfig
from hubedit_unlearn.texts import IGNORED, Example, batch_of, padding_of


@dataclass(frozen=True)
class Scored:
    """The cross-entropies of a batch's labelled tokens, as its share of an optimiser step.

    `nll` float32 [tokens] in nats, `row` int64 [tokens] the example each belongs to; `tokens` and
    `rows` count those of the whole step, so that losses of batches add up to the step's loss.
    """

    nll: torch.Tensor
    row: torch.Tensor
    tokens: int
    rows: int


Objective = Callable[[Scored, Scored], torch.Tensor]
"""The loss to minimise, of a batch to forget and a batch to retain."""


def scored(
    model: hubedit.EditableModel, examples: Sequence[Example], tokens: int, rows: int
) -> Scored:
    """Score every labelled token given those before it; `tokens` and `rows` as in `Scored`."""
    if not examples:
        empty = torch.zeros(0, device=model.device)
        return Scored(empty, empty.long(), tokens, rows)
    batch = batch_of(examples, padding_of(model), model.device)
    logits = model.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits[
        :, :-1
    ]
    labels = batch.labels[:, 1:]
    at = labels != IGNORED
    nll = torch.nn.functional.cross_entropy(logits[at].float(), labels[at], reduction="none")
    return Scored(nll, at.nonzero()[:, 0], tokens, rows)


def graddiff(config: GradDiffConfig) -> Objective:
    """−CE(forget) + λ·CE(retain), each a mean over labelled tokens (Maini et al. 2024, section 4).

    Deviation: the ascent on a token stops at `forget_cap` nats.
    """

    cap = math.inf if config.forget_cap is None else config.forget_cap

    def objective(forget: Scored, retain: Scored) -> torch.Tensor:
        lost = forget.nll.clamp(max=cap).sum() / forget.tokens
        held = retain.nll.sum() / retain.tokens
        return config.retain_weight * held - lost

    return objective


LOSSES: Mapping[str, Callable[[Any], Objective]] = {"graddiff": graddiff}
"""By the method's name: what makes the loss from the method's settings."""
