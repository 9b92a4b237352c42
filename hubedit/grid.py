"""The grid of low-rank factors, on which float64 computes their product exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hubedit.errors import NonFiniteUpdateError
from hubedit.floats import Doubles, doubles, from_double

Factor = npt.NDArray[np.float32]

SMALLEST_EXPONENT = -149
"""The smallest float32 above zero is two to this power."""


@dataclass(frozen=True)
class GridError:
    """How far rounding to the grid moved an update, as ratios of Frobenius norms.

    `overall` is of the whole product; `component` is the worst of the rank-one terms.
    """

    overall: float
    component: float


def grid_bits(rank: int) -> int:
    """Bits b of an entry beside its row's scale: min(24, ⌊(53 − ⌈log₂ rank⌉) / 2⌋).

    Each product of two entries is then below 2^(2b) units, and a sum of `rank` of them below 2⁵³.
    """
    return min(24, (53 - (rank - 1).bit_length()) // 2)


def balanced(left: Doubles, right: Doubles) -> tuple[Doubles, Doubles]:
    """Factors [m, r] and [r, n] of the same product, both sides of each component alike in norm.

    Only powers of two are moved between them, so that nothing is rounded.
    """
    shifts = np.array(
        [_balance(left[:, k], right[k]) for k in range(left.shape[1])], dtype=np.int64
    )
    return np.ldexp(left, shifts), np.ldexp(right, -shifts[:, None])


def to_grid(left: Doubles, right: Doubles) -> tuple[Factor, Factor]:
    """Round factors [m, r] and [r, n] to the grid.

    Rows of `left` and columns of `right` become multiples of 2^(e−b), where e ≥ b − 149 is the
    least integer such that no rounded entry exceeds 2^e.

    Raises:
        NonFiniteUpdateError: an entry is not finite, or is not once rounded.
    """
    bits = grid_bits(left.shape[1])
    near = [_float32(_round_rows(left, bits)), _float32(_round_rows(right.T, bits).T)]
    if not all(np.isfinite(part).all() for part in near):
        raise NonFiniteUpdateError(
            "the update holds NaN, infinity or values too large for float32, so it cannot be stored"
        )
    return near[0], near[1]


def off_grid(left: Factor, right: Factor) -> str | None:
    """Say what keeps factors [m, r] and [r, n] off the grid, or None if they are on it."""
    bits = grid_bits(left.shape[1])
    for what, rows in (("row of left", doubles(left)), ("column of right", doubles(right).T)):
        if not np.isfinite(rows).all():
            return f"a {what} is not finite"
        if not (_round_rows(rows, bits) == rows).all():
            return f"a {what} is not made of multiples of its unit"
    return None


def grid_error(left: Doubles, right: Doubles, near_left: Factor, near_right: Factor) -> GridError:
    """How far `near_left · near_right` is from `left · right`, of which they are the rounding."""
    new_left, new_right = doubles(near_left), doubles(near_right)
    moved_left, moved_right = new_left - left, new_right - right
    # the difference of the products is moved_left·new_right + left·moved_right: of twice the rank
    tall, wide = np.hstack([moved_left, left]), np.vstack([new_right, moved_right])
    ranks = range(left.shape[1])
    components = (
        _ratio(
            product_norm(tall[:, [k, k + len(ranks)]], wide[[k, k + len(ranks)]]),
            float(np.linalg.norm(left[:, k]) * np.linalg.norm(right[k])),
        )
        for k in ranks
    )
    overall = _ratio(product_norm(tall, wide), product_norm(left, right))
    return GridError(overall, max(components))


def product_norm(left: Doubles, right: Doubles) -> float:
    """Frobenius norm of `left · right`, without the product: of its triangular parts."""
    tall: Doubles = np.asarray(np.linalg.qr(left, mode="r"))
    wide: Doubles = np.asarray(np.linalg.qr(right.T, mode="r"))
    return float(np.linalg.norm(tall @ wide.T))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (math.inf if part else 0.0)


def _float32(values: Doubles) -> Factor:
    near: Factor = from_double(np.ascontiguousarray(values)).view(np.float32)
    return near


def _balance(column: Doubles, row: Doubles) -> int:
    """The power of two that brings the norms of a component's two sides nearest to each other."""
    tall, wide = math.fsum(column * column), math.fsum(row * row)
    if tall == 0 or wide == 0:
        return 0
    # half the binary logarithm of the norms' ratio, from the exponent of its square alone
    return (2 * math.frexp(wide / tall)[1] + 3) // 8


def _round_rows(rows: Doubles, bits: int) -> Doubles:
    """Round each row to multiples of its unit 2^(e−b)."""
    fraction, exponent = np.frexp(np.abs(rows).max(axis=1))
    least = np.where(fraction == 0.5, exponent - 1, exponent)
    unit = np.maximum(least - bits, SMALLEST_EXPONENT)[:, None]
    rounded: Doubles = np.ldexp(np.rint(np.ldexp(rows, -unit)), unit)
    return rounded
