"""Neutral texts before and after an edit: how probable they are, and how far predictions moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubedit.evaluating.texts import divergence
from hubedit.reading import Reading

if TYPE_CHECKING:
    from hubedit.asking import Asking

TEXTS = 32
"""How many texts are read, at most: the first ones."""
TOKENS = 100
"""How many tokens of each are read, at most."""
MASKED = 8
"""How many tokens of each are masked, one at a time, for a masked model."""
POSITIONS = 1024
"""How many places are predicted in all, at most, so that their distributions fit in memory."""
NO_SCORE = "an encoder-decoder gives no probability to a text by itself"


@dataclass(frozen=True)
class Predictions:
    """What a model predicts of one text: of each place scored, in order.

    `logprobs` are natural logarithms, float32 [places, vocabulary]; `targets` are the ids that are
    there, int64 [places].
    """

    logprobs: np.ndarray
    targets: np.ndarray

    @property
    def nll(self) -> float:
        """Σ −log p of the tokens that are there, in nats."""
        places = np.arange(len(self.targets))
        return float(-self.logprobs[places, self.targets].astype(np.float64).sum())


def read(model: Asking, texts: Sequence[str], limit: int = TEXTS) -> list[Predictions]:
    """What a model predicts of texts.

    A causal model reads a text once and predicts each token from those before it; a masked model
    predicts `MASKED` tokens, evenly spread, each with itself masked (pseudo-perplexity, Salazar et
    al. 2020, arXiv:1910.14659). Empty for an encoder-decoder.

    Args:
        texts: of which the first `limit` are read.
    """
    kind = model.layout.architecture
    if kind == "seq2seq":
        return []
    found, left = [], POSITIONS
    for text in texts[:limit]:
        ids = model.tokens(text)[0][:TOKENS]
        readings, targets = _causal(ids) if kind == "causal" else _masked(model, ids)
        if not targets or left < len(targets):
            continue
        left -= len(targets)
        parts = dict(model.logprobs(readings))
        logprobs = np.concatenate([parts[index].numpy() for index in range(len(readings))])
        found.append(Predictions(logprobs, np.array(targets)))
    return found


def read_on(model: Asking, texts: Sequence[str], limit: int = TEXTS) -> list[Predictions]:
    """What an encoder-decoder predicts of the second half of each text, when it reads the first.

    It is a fixed question to compare a model with itself, and no measure of how well it speaks: few
    such models were trained to go on with a text.

    Args:
        texts: of which the first `limit` are read, `TOKENS` words of each.
    """
    found = []
    for text in texts[:limit]:
        words = text.split()[:TOKENS]
        half = len(words) // 2
        if not half:
            continue
        reading, targets = model.scored(" ".join(words[:half]), " " + " ".join(words[half:]))
        [(_, logprobs)] = model.logprobs([reading])
        found.append(Predictions(logprobs.numpy(), np.array(targets)))
    return found


def _causal(ids: Sequence[int]) -> tuple[list[Reading], list[int]]:
    return [Reading(ids, range(len(ids) - 1))], list(ids[1:])


def _masked(model: Asking, ids: Sequence[int]) -> tuple[list[Reading], list[int]]:
    special = set(model.tokenizer.all_special_ids)
    mask: int = model.tokenizer.vocab[model.mask()]
    own = [place for place, token in enumerate(ids) if token not in special]
    step = max(1, len(own) // MASKED)
    places = own[::step][:MASKED]
    readings = [
        Reading([mask if other == place else token for other, token in enumerate(ids)], [place])
        for place in places
    ]
    return readings, [ids[place] for place in places]


@dataclass(frozen=True)
class Shift:
    """One text before and after: Σ −log p of its tokens, and Σ D(before ‖ after), in nats."""

    places: int
    before: float
    after: float
    divergence: float


def shifts(before: Sequence[Predictions], after: Sequence[Predictions]) -> list[Shift]:
    """How each text moved."""
    return [
        Shift(
            len(old.targets),
            old.nll,
            new.nll,
            float(divergence(old.logprobs, new.logprobs).sum()),
        )
        for old, new in zip(before, after, strict=True)
    ]
