"""Finds the factors behind a change that came as weights: a merged adapter, an edit in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hubedit.floats import NARROW, Doubles, to_double, widen
from hubedit.low_rank import LowRank
from hubedit.stored import StoredTensor

MAX_RANK = 128
MAX_ELEMENTS = 1 << 26
"""Larger tensors are not searched: the search holds some float64 values for each element."""

_PRECISION = {"F32": (24, -149), "BF16": (8, -133), "F16": (11, -24)}
"""Bits of precision, and the exponent of the smallest unit."""

_ROUNDS = 60
_PATIENCE = 4
_STRIDE = 1.8


def recover(before: StoredTensor, after: StoredTensor, nbytes: int) -> LowRank | None:
    """Factors whose product, added and rounded, comes near to `after`; None if there are none.

    What is known of the change is an interval for each element: that of the numbers which round to
    the new weight. Its middle has the singular values of the change and of the rounding, and the
    bounds of a random matrix tell them apart (Bai and Yin 1993). From the leading ones, projections
    in turn onto the intervals and onto matrices of that rank (Cheney and Goldstein 1959) come near
    to a matrix of low rank in all intervals.

    Args:
        before: a tensor [m, n].
        after: of the same dtype and shape.
        nbytes: what the change takes otherwise; larger factors are not worth finding.
    """
    if before.dtype not in NARROW or len(before.shape) != 2 or before.size > MAX_ELEMENTS:
        return None
    rows, columns = before.shape
    most = min(MAX_RANK, min(rows, columns) // 2, nbytes // (4 * (rows + columns)))
    if most < 1:
        return None
    old, new = (to_double(widen(t.bits(), t.dtype)).reshape(before.shape) for t in (before, after))
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        return None
    middle, half = new - old, _half_unit(new, before.dtype)
    # float32 factors and a float32 merge round the change itself, too
    half += np.abs(middle) * 2.0**-24
    found = _leading(middle, half, most)
    if found is None:
        return None
    return LowRank(*_projected(middle, half, found)).rounded()[0]


def _half_unit(values: Doubles, dtype: str) -> Doubles:
    """Half the distance between floats at each value."""
    precision, least = _PRECISION[dtype]
    exponent = np.frexp(values)[1]
    exponent[values == 0] = -1074
    found: Doubles = np.ldexp(0.5, np.maximum(exponent - precision, least))
    return found


def _leading(middle: Doubles, half: Doubles, most: int) -> Doubles | None:
    """Right singular vectors [n, r] that rise above the rounding; None if none or too many do."""
    # a uniform error on ±h has the variance h²/3
    noise = np.sqrt(np.square(half).sum(axis=1).max() / 3)
    noise += np.sqrt(np.square(half).sum(axis=0).max() / 3)
    rows, columns = middle.shape
    width = min(most + 8, rows, columns)
    probe = np.random.default_rng(0).normal(size=(columns, width))
    for _ in range(2):
        probe = _basis(middle.T @ _basis(middle @ probe))
    _, values, turned = np.linalg.svd(middle @ probe, full_matrices=False)
    rank = int(np.count_nonzero(values > 1.1 * noise))
    if not 1 <= rank <= most:
        return None
    found: Doubles = probe @ turned[:rank].T
    return found


def _projected(middle: Doubles, half: Doubles, right: Doubles) -> tuple[Any, Any]:
    """Factors [m, r] and [r, n] in as many intervals as can be reached."""
    left = middle @ right
    best, fewest, worse = (left, right), middle.size + 1, 0
    for _ in range(_ROUNDS):
        product = left @ right.T
        past = np.clip(product - middle, -half, half) + middle - product
        missed = int(np.count_nonzero(past))
        worse = 0 if missed < fewest * 0.97 else worse + 1
        if missed < fewest:
            best, fewest = (left, right), missed
        if not missed or worse > _PATIENCE:
            break
        target = product + _STRIDE * past
        right = _basis(target.T @ _basis(left))
        left = target @ right
    return best[0], best[1].T


def _basis(matrix: Doubles) -> Doubles:
    found: npt.NDArray[np.float64] = np.linalg.qr(matrix)[0]
    return found
