"""Finds the factors behind a change that came as weights: a merged adapter, an edit in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hubedit.floats import NARROW, widen
from hubedit.low_rank import LowRank
from hubedit.stored import StoredTensor

MAX_RANK = 128
SAMPLE = 1 << 22
"""How many elements are searched for factors; of larger tensors, those of some rows."""

_PRECISION = {"F32": (24, -149), "BF16": (8, -133), "F16": (11, -24)}
"""Bits of precision, and the exponent of the smallest unit."""

_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
_TRIAL, _ROUNDS, _PATIENCE = 6, 60, 3
_STRIDE = 1.8
_LARGEST = 2.0**40
_MISS = 1.0
"""Bytes that one element takes which the product misses, about."""

Matrix = npt.NDArray[Any]


def recover(before: StoredTensor, after: StoredTensor, nbytes: int) -> LowRank | None:
    """Factors whose product, added and rounded, comes near to `after`; None if there are none.

    What is known of the change is an interval for each element: that of the numbers which round to
    the new weight. Its middle has the singular values of the change and of the rounding, and the
    bounds of a random matrix tell them apart (Bai and Yin 1993). From the leading ones, projections
    in turn onto the intervals and onto matrices of some rank (Cheney and Goldstein 1959) come near
    to a matrix of that rank in all intervals. The rank is that with the fewest bytes.

    Args:
        before: a tensor [m, n].
        after: of the same dtype and shape.
        nbytes: what the change takes otherwise; larger factors are not worth finding.
    """
    if before.dtype not in NARROW or len(before.shape) != 2:
        return None
    rows, columns = before.shape
    most = min(MAX_RANK, min(rows, columns) // 2, nbytes // (4 * (rows + columns)))
    if most < 1:
        return None
    wanted = max(2 * most, SAMPLE // columns)
    sample = np.linspace(0, rows - 1, min(rows, wanted)).astype(np.int64)
    with np.errstate(all="ignore"):
        return _found(before, after, sample, most, nbytes)


def _found(
    before: StoredTensor,
    after: StoredTensor,
    sample: npt.NDArray[np.int64],
    most: int,
    nbytes: int,
) -> LowRank | None:
    """Factors of at most some rank, their right one found on some rows."""
    rows, columns = before.shape
    middle, half = _intervals(before, after, sample)
    # within a float32's range the squares of what is searched are as well
    if not np.abs(middle).max(initial=0) < _LARGEST:
        return None
    right = _leading(middle, half, most)
    if right is None:
        return None
    # a few rounds find less than all of them
    best, least = None, 1.5 * nbytes
    for rank in [*(rank for rank in _RANKS if rank < right.shape[1]), right.shape[1]]:
        _, tried, missed = _projected(middle, half, right[:, :rank], _TRIAL)
        cost = 4 * rank * (rows + columns) + _MISS * missed / middle.size * before.size
        if cost < least:
            best, least = tried, cost
    if best is None:
        return None
    left, right, _ = _projected(middle, half, best, _ROUNDS)
    if sample.size < rows:
        left = np.concatenate(
            [
                _fitted(*_intervals(before, after, block), right)
                for block in np.array_split(np.arange(rows), -(-before.size // SAMPLE))
            ]
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return None
    return LowRank(left, right.T).rounded()[0]


def _intervals(
    before: StoredTensor, after: StoredTensor, rows: npt.NDArray[np.int64]
) -> tuple[Matrix, Matrix]:
    """The middle and half the width of what each element of some rows may have been moved by."""
    exact = np.float64 if before.dtype == "F32" else np.float32
    old, new = (
        widen(tensor.bits().reshape(tensor.shape)[rows], tensor.dtype).view(np.float32)
        for tensor in (before, after)
    )
    precision, least = _PRECISION[before.dtype]
    exponent = np.frexp(new)[1]
    half = np.ldexp(exact(0.5), np.maximum(exponent - precision, least)).astype(exact)
    middle = new.astype(exact) - old.astype(exact)
    # the factors' products are rounded, too, where an adapter is merged
    half += np.abs(middle) * exact(2.0**-24)
    return middle, half


def _leading(middle: Matrix, half: Matrix, most: int) -> Matrix | None:
    """Right singular vectors [n, r] that rise above the rounding; None if none do.

    Where too many do, the change has no low rank, unless its first ones hold nearly all of it.
    """
    # a uniform error on ±h has the variance h²/3
    square = np.square(half, dtype=np.float64)
    noise = np.sqrt(square.sum(axis=1).max() / 3) + np.sqrt(square.sum(axis=0).max() / 3)
    rows, columns = middle.shape
    width = min(most + 8, rows, columns)
    probe = np.random.default_rng(0).normal(size=(columns, width)).astype(middle.dtype)
    for _ in range(2):
        probe = _basis(middle.T @ _basis(middle @ probe))
    _, values, turned = np.linalg.svd(middle @ probe, full_matrices=False)
    rank = min(int(np.count_nonzero(values > 1.1 * noise)), most)
    held = np.square(values[:rank]).sum() / max(np.square(middle, dtype=np.float64).sum(), 1e-300)
    if not rank or (rank == most and held < 0.5):
        return None
    found: Matrix = probe @ turned[:rank].T
    return found


def _projected(
    middle: Matrix, half: Matrix, right: Matrix, rounds: int
) -> tuple[Matrix, Matrix, int]:
    """Factors [m, r] and [n, r] in as many intervals as can be reached, and how many are missed."""
    left = middle @ right
    best, fewest, worse = (left, right), middle.size + 1, 0
    for _ in range(rounds):
        past, product = _past(middle, half, left, right)
        missed = int(np.count_nonzero(past))
        worse = 0 if missed < fewest * 0.97 else worse + 1
        if missed < fewest:
            best, fewest = (left, right), missed
        if not missed or worse > _PATIENCE:
            break
        past *= _STRIDE
        product += past
        right = _basis(product.T @ _basis(left))
        left = product @ right
    return *best, fewest


def _fitted(middle: Matrix, half: Matrix, right: Matrix) -> Matrix:
    """The factor [m, r] that goes with an orthonormal one [n, r]."""
    left = middle @ right
    best, fewest, worse = left, middle.size + 1, 0
    for _ in range(_ROUNDS):
        past, _ = _past(middle, half, left, right)
        missed = int(np.count_nonzero(past))
        worse = 0 if missed < fewest * 0.97 else worse + 1
        if missed < fewest:
            best, fewest = left, missed
        if not missed or worse > _PATIENCE:
            break
        left = left + _STRIDE * (past @ right)
    return best


def _past(middle: Matrix, half: Matrix, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """How far the product is past each interval, with the sign of the way back; and the product."""
    product = left @ right.T
    past = middle - product
    inside = np.abs(past) <= half
    past -= np.copysign(half, past)
    past[inside] = 0
    return past, product


def _basis(matrix: Matrix) -> Matrix:
    found: Matrix = np.linalg.qr(matrix)[0]
    return found
