"""95 % intervals by resampling cases, with a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
SEED = 0


def bootstrap_mean(
    cases: Sequence[int], values: Sequence[float], seed: int = SEED
) -> tuple[float, float] | None:
    """The interval of a mean over items, from resampling the cases that they belong to.

    Items of one case are not independent, so cases are drawn, with all their items (a cluster
    bootstrap; Efron and Tibshirani 1993, percentiles). None of one case or none.

    Args:
        cases: the case of each item.
        values: the value of each item.
        seed: of the draws.
    """
    names, index = np.unique(np.asarray(cases, dtype=np.int64), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)
    return bootstrap(len(names), lambda drawn: sums[drawn].sum(-1) / counts[drawn].sum(-1), seed)


def bootstrap(
    n: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int = SEED
) -> tuple[float, float] | None:
    """The interval of a statistic of `n` units; None of fewer than two.

    Args:
        n: how many units there are.
        statistic: from indices int64 [resamples, n] to values float64 [resamples].
        seed: of the draws.
    """
    if n < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    low, high = np.percentile(statistic(drawn), [2.5, 97.5])
    return float(low), float(high)
