"""Membership inference: scores that tell trained texts from unseen ones, and their AUC.

Every score is oriented like a loss: high means not a member. Sources: loss (Yeom et al. 2018),
zlib and reference (Carlini et al. 2021), Min-K% (Shi et al. 2023), Min-K%++ (Zhang et al. 2024),
gradient norm (Wang et al. 2024); variants as in OpenUnlearning where they differ.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_VARIANCE = 1e-6
"""Below this, the variance of Min-K%++ is raised to it (OpenUnlearning's value)."""


def zlib_score(loss: float, text: str) -> float:
    """Mean loss divided by the length in bytes of the compressed answer (UTF-8, level 6)."""
    return loss / len(zlib.compress(text.encode("utf-8")))


def reference_score(loss: float, reference: float) -> float:
    """Mean loss less that under a reference model, such as the retrained one."""
    return loss - reference


def _lowest(values: Sequence[float], k: float) -> float:
    if not 0 < k <= 1:
        raise ValueError(f"k is a share of the tokens, above 0 and at most 1, not {k}")
    if not values:
        raise ValueError("a score needs at least one token")
    count = max(1, int(k * len(values)))
    return -float(np.mean(np.sort(np.asarray(values, dtype=np.float64))[:count]))


def min_k(logprobs: Sequence[float], k: float = 0.4) -> float:
    """Minus the mean of the lowest ⌊kT⌋ (at least one) of the tokens' log-probabilities.

    MUSE takes k = 0.4 over all tokens but the first. OpenUnlearning leaves the last labelled token
    out, meant for the end token; the caller chooses by what it labels.
    """
    return _lowest(logprobs, k)


def min_k_plus_plus(
    logprobs: Sequence[float], means: Sequence[float], variances: Sequence[float], k: float = 0.4
) -> float:
    """Min-K% over (log p − μ)/σ, μ and σ² being of log p under the model's own prediction there.

    Args:
        logprobs: of the labelled tokens [T].
        means: Σᵥ pᵥ log pᵥ at the same places [T].
        variances: Σᵥ pᵥ (log pᵥ − μ)² at the same places [T], raised to `LEAST_VARIANCE`.
        k: share of the tokens.
    """
    spread = np.sqrt(np.maximum(np.asarray(variances, dtype=np.float64), LEAST_VARIANCE))
    given = np.asarray(logprobs, dtype=np.float64) - np.asarray(means, dtype=np.float64)
    return _lowest((given / spread).tolist(), k)


def gradient_norm(norms: Sequence[float]) -> float:
    """Mean over the parameter tensors of the 2-norm of each one's gradient of the mean loss.

    The gradient is of one text at a time with dropout off; OpenUnlearning leaves it on, which makes
    the score random.
    """
    return float(np.mean(np.asarray(norms, dtype=np.float64)))


@dataclass(frozen=True)
class Area:
    """Area under the ROC curve with a confidence interval (DeLong et al. 1988).

    1: members are told from others surely; 0.5: chance; below: over-forgotten. The interval is the
    normal one of DeLong's variance, cut to [0, 1]; at 0 and 1 that variance is 0, so that it is
    the one of a rule of three instead: an end 3/n away, n the smaller class.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: tuple[int, int]


def auc(members: ArrayLike, others: ArrayLike, confidence: float = 0.95) -> Area:
    """P(score of another > score of a member), ties counting half; forget 0, holdout 1.

    Args:
        members: scores of the texts that were trained (and were to be forgotten).
        others: scores of texts of the same kind that were never trained.
        confidence: of the interval.

    Raises:
        ValueError: a class has fewer than two scores, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score

    low, high = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if min(len(low), len(high)) < 2 or not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("an AUC needs at least two finite scores of each kind")
    labels = np.concatenate([np.zeros(len(low)), np.ones(len(high))])
    value = float(roc_auc_score(labels, np.concatenate([low, high])))
    n = (len(low), len(high))
    if value in (0.0, 1.0):
        reach = 3 / min(n)
    else:
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(_variance(low, high))
    return Area(value, max(0.0, value - reach), min(1.0, value + reach), confidence, n)


def _variance(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """DeLong's variance of the AUC from its two placement values."""
    wins = (others[:, None] > members[None]) + 0.5 * (others[:, None] == members[None])
    by_other, by_member = wins.mean(axis=1), wins.mean(axis=0)
    return float(by_other.var(ddof=1) / len(others) + by_member.var(ddof=1) / len(members))


def privacy_leakage(unlearned: float, oracle: float) -> float:
    """MUSE's PrivLeak, in percent: (A_u − A_o)/A_o with A = 1 − AUC, AUC as `auc` gives it.

    MUSE orients scores by membership, so its AUC is the chance that a held-out text looks more like
    a member than a forgotten one. −100: not unlearned; 0: as the retrained model; above 0:
    over-unlearned.

    Raises:
        ValueError: the retrained model's AUC is 1, so that there is nothing to compare with.
    """
    if oracle >= 1:
        raise ValueError("the retrained model tells members from others surely; it is no oracle")
    return 100 * ((1 - unlearned) - (1 - oracle)) / (1 - oracle)


def likeness(unlearned: float, oracle: float) -> float:
    """s_MIA: 1 − |AUC − AUC_oracle| / AUC_oracle, cut to [0, 1] (OpenUnlearning's re-benchmark)."""
    return float(np.clip(1 - abs(unlearned - oracle) / oracle, 0, 1))
