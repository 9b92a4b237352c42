"""Kinds of update: what each stores, and what the tensor becomes by it, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hubedit.addition import add_product
from hubedit.corrected import LowRankPacked
from hubedit.grid import GridError
from hubedit.kind import Update
from hubedit.low_rank import LowRank
from hubedit.presence import Add, Drop
from hubedit.replacing import Columns, Replace, Rows, Sparse
from hubedit.stepping import Packed, SparsePacked
from hubedit.stored import StoredTensor

__all__ = [
    "KINDS",
    "Add",
    "Columns",
    "Drop",
    "GridError",
    "LowRank",
    "LowRankPacked",
    "Packed",
    "Replace",
    "Rows",
    "Sparse",
    "SparsePacked",
    "StoredTensor",
    "Update",
    "add_product",
    "apply",
]

_ALL: Iterable[type[Update]] = (
    LowRank, Sparse, Rows, Columns, Replace, SparsePacked, Packed, LowRankPacked, Add, Drop,
)  # fmt: skip
KINDS: Mapping[str, type[Update]] = {update.kind: update for update in _ALL}
"""Every kind of update by the name that a delta gives it."""


def apply(update: Update, before: StoredTensor) -> StoredTensor:
    """The tensor that an update makes of another: the same bits on every machine.

    Raises:
        DeltaError: the update does not fit the tensor, or its factors are off the grid.
        NonFiniteUpdateError: NaN or infinity would be written.
    """
    return update.apply(before)
