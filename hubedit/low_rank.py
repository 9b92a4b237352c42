"""The kind of update that adds a product of two factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hubedit.addition import add_product
from hubedit.errors import DeltaError, DeltaFormatError, NonFiniteUpdateError
from hubedit.floats import NARROW, doubles
from hubedit.grid import GridError, balanced, grid_error, off_grid, to_grid
from hubedit.kind import Update, take
from hubedit.stored import StoredTensor, float_array, raw


class LowRank(Update):
    """A product added: the tensor becomes W + left · right, of rank r.

    Args:
        left: float32 [m, r]; an array or torch tensor, floats of another width are rounded.
        right: float32 [r, n], likewise.

    Raises:
        DeltaError: they are not matrices that can be multiplied, or r is not in 1 … min(m, n).
    """

    kind = "low_rank"

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = float_array(left), float_array(right)
        problem = _misfit(self.left.shape, self.right.shape)
        if problem:
            raise DeltaError(f"a low-rank update needs left [m, r] and right [r, n]: {problem}")
        self.rank: int = self.left.shape[1]

    def __repr__(self) -> str:
        return f"LowRank(rank {self.rank}, shape {list(self.shape)})"

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the tensor that it changes."""
        return self.left.shape[0], self.right.shape[1]

    @classmethod
    def concatenate(cls, updates: Sequence[LowRank]) -> LowRank:
        """The sum of updates of one tensor as one update; their ranks add up.

        Raises:
            DeltaError: shapes differ, or the rank would exceed the smaller side.
        """
        if len({update.shape for update in updates}) != 1:
            raise DeltaError(
                f"updates of one tensor have one shape, not {[list(u.shape) for u in updates]}"
            )
        return cls(
            np.concatenate([update.left for update in updates], axis=1),
            np.concatenate([update.right for update in updates], axis=0),
        )

    def rounded(self) -> tuple[LowRank, GridError]:
        """The nearest update on the grid, and how far it is.

        Components of zero are left out. See docs/delta-format.md for the grid.

        Raises:
            NonFiniteUpdateError: it holds NaN or infinity, or values too large for float32.
        """
        left, right = doubles(self.left), doubles(self.right)
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise NonFiniteUpdateError("the update holds NaN or infinity, so it cannot be stored")
        some = np.flatnonzero(left.any(axis=0) & right.any(axis=1))
        some = some if some.size else np.array([0])
        left, right = balanced(left[:, some], right[some])
        near_left, near_right = to_grid(left, right)
        return LowRank(near_left, near_right), grid_error(left, right, near_left, near_right)

    def check_grid(self) -> None:
        """Refuse factors that are not on the grid.

        Raises:
            DeltaError: says which; `rounded()` puts them there.
        """
        problem = off_grid(self.left, self.right)
        if problem:
            raise DeltaError(f"the factors are off the grid: {problem}; use those of rounded()")

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`left` and `right`."""
        return {
            "left": StoredTensor("F32", self.left.shape, raw(self.left)),
            "right": StoredTensor("F32", self.right.shape, raw(self.right)),
        }

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> LowRank:
        """See `Update.from_parts`; factors off the grid are refused."""
        left, right = take(parts, "left", "right")
        problem = _misfit(left.shape, right.shape)
        if problem or left.dtype != "F32" or right.dtype != "F32":
            raise DeltaFormatError(problem or "its factors are not F32")
        if dtype not in NARROW or shape != (left.shape[0], right.shape[1]):
            raise DeltaFormatError(f"its factors do not fit a tensor of {dtype} {list(shape)}")
        found = cls(left.to_float32(), right.to_float32())
        problem = off_grid(found.left, found.right)
        if problem:
            raise DeltaFormatError(f"its factors are off the grid: {problem}")
        return found

    def apply(self, before: StoredTensor) -> StoredTensor:
        """The canonical addition of a product on the grid."""
        self.check_grid()
        return add_product(before, self.left, self.right)


def _misfit(left: tuple[int, ...], right: tuple[int, ...]) -> str | None:
    """Say why shapes are not those of factors, or None."""
    if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
        return f"its factors are {list(left)} and {list(right)}"
    if not 1 <= left[1] <= min(left[0], right[1]):
        return f"rank {left[1]} is not between 1 and the smaller side of {[left[0], right[1]]}"
    return None
