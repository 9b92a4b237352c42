"""Probabilities of answers and the truth ratio, from negative log-likelihoods in nats.

Source: TOFU (Maini et al. 2024, arXiv:2401.06121). A loss here is the mean negative log-likelihood
of the labelled tokens of one answer (its end among them, where the scorer labels it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Averaging = Literal["geometric", "arithmetic"]
"""How the wrong answers of one question are averaged in a truth ratio.

`geometric` is what TOFU's leaderboard and OpenUnlearning compute: exp of the mean of their losses.
`arithmetic` is what the paper writes, and TOFU's trainer computes: the mean of their probabilities.
"""


def loss(logprobs: Sequence[float]) -> float:
    """Mean negative log-likelihood of the tokens of one answer.

    Raises:
        ValueError: there are no tokens.
    """
    if not logprobs:
        raise ValueError("an answer needs at least one labelled token")
    return -float(np.mean(np.asarray(logprobs, dtype=np.float64)))


def probability(losses: ArrayLike) -> NDArray[np.float64]:
    """P = exp(−loss), elementwise: the geometric mean of the tokens' probabilities."""
    return np.exp(-np.asarray(losses, dtype=np.float64))


def among(right: ArrayLike, wrong: ArrayLike) -> NDArray[np.float64]:
    """P(right) / (P(right) + Σ P(wrong)), per question.

    Args:
        right: losses [questions].
        wrong: losses [questions, options].
    """
    good = np.asarray(right, dtype=np.float64)[:, None]
    every = np.concatenate([good, np.asarray(wrong, dtype=np.float64)], axis=1)
    shifted = np.exp(every.min(axis=1, keepdims=True) - every)  # one term is 1: never 0 / 0
    return np.asarray(shifted[:, 0] / shifted.sum(axis=1), dtype=np.float64)


def log_truth_ratio(
    correct: ArrayLike, wrong: ArrayLike, averaging: Averaging = "geometric"
) -> NDArray[np.float64]:
    """log R per question, R = average P(wrong) / P(correct); below 0 where the model knows.

    In logarithms, so that no ratio overflows; TOFU's leaderboard adds 1e-10 to the denominator,
    which is left out here.

    Args:
        correct: losses [questions], of the paraphrased answer, or of the answer where none is.
        wrong: losses [questions, wrong answers].
        averaging: of the wrong answers.
    """
    good = np.asarray(correct, dtype=np.float64)
    bad = -np.asarray(wrong, dtype=np.float64)
    if averaging == "geometric":
        mean = bad.mean(axis=1)
    else:
        top = bad.max(axis=1)
        mean = top + np.log(np.exp(bad - top[:, None]).mean(axis=1))
    return np.asarray(mean + good, dtype=np.float64)


def closer_to_one(log_ratios: ArrayLike) -> float:
    """Mean of min(R, 1/R), TOFU's on the forget set: 1 where right and wrong are alike."""
    return float(np.exp(-np.abs(np.asarray(log_ratios, dtype=np.float64))).mean())


def truer(log_ratios: ArrayLike) -> float:
    """Mean of max(0, 1 − R), TOFU's on the sets to keep: 1 where only the truth is said."""
    ratios = np.exp(np.minimum(np.asarray(log_ratios, dtype=np.float64), 0.0))
    return float((1 - ratios).mean())


def knowledge(log_ratios: ArrayLike) -> float:
    """Mean of P(correct) / (P(correct) + P(wrong)) = 1 / (1 + R), OpenUnlearning's `prob_mean`."""
    log_r = np.asarray(log_ratios, dtype=np.float64)
    return float(np.exp(-np.logaddexp(0.0, log_r)).mean())
