"""The losses of batches that terms are made of, each a batch's share of a step's; needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hubedit_unlearn.scoring import Scored

Before = Literal["sums", "logits", "states"]


@dataclass(frozen=True)
class Term:
    """A summand of a loss: `weight` times `loss` of a batch drawn from `stream`.

    `loss` is given a `Scored`, or with a `layer` an `Observed`, and returns the batch's share of
    the step's loss. `before` says what is kept of the model before training: the summed
    cross-entropy of each example, its logits, or with a `layer` its hidden states.
    """

    stream: str
    loss: Callable[[Any], torch.Tensor]
    weight: float = 1.0
    before: Before | None = None
    layer: int | None = None


def descent(batch: Scored) -> torch.Tensor:
    """Mean cross-entropy of the scored tokens."""
    return batch.nll.sum() / batch.share.tokens


def ascent(batch: Scored) -> torch.Tensor:
    """Minus the mean cross-entropy of the scored tokens."""
    return -descent(batch)


def capped_ascent(cap: float | None) -> Callable[[Scored], torch.Tensor]:
    """Ascent in which a token beyond `cap` nats is pushed no further."""
    most = math.inf if cap is None else cap
    return lambda batch: -batch.nll.clamp(max=most).sum() / batch.share.tokens


def divergence(batch: Scored) -> torch.Tensor:
    """KL(p₀ ‖ p), the mean over scored tokens; p₀ is the model before training.

    Deviation: padding is left out, which published code counts in the mean.
    """
    assert batch.before is not None
    old, new = batch.before.log_softmax(-1), batch.logits.log_softmax(-1)
    return (old.exp() * (old - new)).sum() / batch.share.tokens


def negative_preference(beta: float) -> Callable[[Scored], torch.Tensor]:
    """−(2/β) log σ(β (NLL − NLL₀)), the mean over examples (Zhang et al. 2024, equation 3).

    NLL is summed over an example's tokens. As β goes to 0 the gradient becomes that of ascent on
    NLL; at the start the loss is (2/β) log 2.
    """

    def loss(batch: Scored) -> torch.Tensor:
        assert batch.before is not None
        return _preference(beta, batch.sums - batch.before).sum() / batch.share.examples

    return loss


def simple_preference(beta: float, delta: float) -> Callable[[Scored], torch.Tensor]:
    """−(2/β) log σ(β (NLL/T − δ)), the mean over examples of T tokens (Fan et al. 2024, eq. 6)."""

    def loss(batch: Scored) -> torch.Tensor:
        return _preference(beta, batch.sums / batch.lengths - delta).sum() / batch.share.examples

    return loss


def direct_preference(beta: float) -> Callable[[Scored], torch.Tensor]:
    """−(2/β) log σ(β [log p/p₀ of the refusal − log p/p₀ of the answer]), the mean over pairs.

    Examples come in pairs, the refusal first (Rafailov et al. 2023, equation 7, with the factor
    2/β of Zhang et al. 2024); log-probabilities are summed over tokens.
    """

    def loss(batch: Scored) -> torch.Tensor:
        assert batch.before is not None
        lost = (batch.sums - batch.before).view(-1, 2)
        return _preference(beta, lost[:, 1] - lost[:, 0]).sum() / (batch.share.examples / 2)

    return loss


def _preference(beta: float, margin: torch.Tensor) -> torch.Tensor:
    return -(2 / beta) * torch.nn.functional.logsigmoid(beta * margin)
