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

    @property
    def holds(self) -> bool:
        """Whether it keeps texts as they are, so that what was lost of them can come back."""
        return self.stream == "normal" or "retain" in self.stream


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
    """−(2/β) log σ(β (NLL − NLL₀)), the mean over examples (Zhang et al. 2024).

    NLL is summed over an example's tokens. As β goes to 0 the gradient becomes that of ascent on
    NLL; at the start the loss is (2/β) log 2.
    """

    def loss(batch: Scored) -> torch.Tensor:
        assert batch.before is not None
        return _preference(beta, batch.sums - batch.before).sum() / batch.share.examples

    return loss


def simple_preference(beta: float, delta: float) -> Callable[[Scored], torch.Tensor]:
    """−(2/β) log σ(β (NLL/T − δ)), the mean over examples of T tokens (Fan et al. 2024)."""

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


def weighted_ascent(power: float, rest: float = 0.0) -> Callable[[Scored], torch.Tensor]:
    """−mean of p^power · (1 − p)^rest · CE over scored tokens, weights without gradient.

    p is the token's probability. With `rest` 0 it is weighted gradient ascent (Wang et al. 2025),
    else SatImp (Yang et al. 2025).
    """

    def loss(batch: Scored) -> torch.Tensor:
        p = batch.nll.detach().neg().exp()
        weight = p.pow(power) * (1 - p).clamp(min=0).pow(rest)
        return -(weight * batch.nll).sum() / batch.share.tokens

    return loss


def lowered(beta: float) -> Callable[[Scored], torch.Tensor]:
    """CE(p, softmax(z₀ − β·onehot(token))), the mean over scored tokens (Dong et al. 2025).

    z₀ are the logits of the model before. Deviation: prompt and padding have no part in it.
    """

    def loss(batch: Scored) -> torch.Tensor:
        assert batch.before is not None
        down = torch.nn.functional.one_hot(batch.labels, batch.before.shape[-1])
        target = (batch.before - beta * down).softmax(-1)
        return -(target * batch.logits.log_softmax(-1)).sum() / batch.share.tokens

    return loss


def without_label(batch: Scored) -> torch.Tensor:
    """CE(p, q), q being p without the token and without gradient (Yang 2025)."""
    out = torch.nn.functional.one_hot(batch.labels, batch.logits.shape[-1]).bool()
    target = batch.logits.detach().masked_fill(out, -torch.inf).softmax(-1)
    return -(target * batch.logits.log_softmax(-1)).sum() / batch.share.tokens


def mean_of_means(batch: Scored) -> torch.Tensor:
    """The mean over examples of each one's mean cross-entropy."""
    return (batch.sums / batch.lengths).sum() / batch.share.examples


def ascent_of_means(batch: Scored) -> torch.Tensor:
    """Minus the mean over examples of each one's mean cross-entropy."""
    return -mean_of_means(batch)


def cross_entropy_before(batch: Scored) -> torch.Tensor:
    """CE(p, p₀), the mean over scored tokens: the divergence and the entropy of p₀."""
    assert batch.before is not None
    target = batch.before.softmax(-1)
    return -(target * batch.logits.log_softmax(-1)).sum() / batch.share.tokens
