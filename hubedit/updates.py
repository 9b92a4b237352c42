"""Kinds of update: what each stores, and what the tensor becomes by it, bit for bit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from hubedit.addition import add_product
from hubedit.errors import DeltaError, DeltaFormatError, NonFiniteUpdateError
from hubedit.floats import NARROW, doubles
from hubedit.grid import GridError, balanced, grid_error, off_grid, to_grid
from hubedit.stored import DTYPE_BITS, StoredTensor, float_array, nonfinite, raw

__all__ = [
    "KINDS",
    "GridError",
    "LowRank",
    "Replace",
    "Sparse",
    "StoredTensor",
    "Update",
    "add_product",
    "apply",
]

UpdateT = TypeVar("UpdateT", bound="Update")


class Update(ABC):
    """A change of one tensor: what is stored of it, and its exact meaning."""

    kind: ClassVar[str]
    rank: int | None = None

    @abstractmethod
    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """What is stored, by the name of the part; `size` is the target's number of elements."""

    @classmethod
    @abstractmethod
    def from_parts(
        cls: type[UpdateT], parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> UpdateT:
        """The update that parts hold, for a target of that dtype and shape.

        Raises:
            DeltaFormatError: they do not fit together or the target, in a clause.
        """

    @abstractmethod
    def apply(self, before: StoredTensor) -> StoredTensor:
        """The tensor after the update; see `hubedit.updates.apply`."""

    @classmethod
    def cost(cls, before: StoredTensor, changed: npt.NDArray[np.bool_]) -> int | None:
        """Bytes to store a change of the elements where `changed`; None if the kind cannot.

        `changed` is flat: one boolean for each element, or for each byte where those are smaller.
        """
        return None

    @classmethod
    def between(cls, after: StoredTensor, changed: npt.NDArray[np.bool_]) -> Update:
        """The update that makes a tensor `after` of one that differs where `changed` alone.

        Only kinds with a `cost` have it.
        """
        raise NotImplementedError(cls.kind)

    def stored_as(self, dtype: str) -> Update:
        """The same update with its values rounded to the target's dtype, where it holds values."""
        return self

    def nbytes(self, size: int) -> int:
        """Bytes of all that is stored, for a target of `size` elements."""
        return sum(part.nbytes for part in self.parts(size).values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Update):
            return NotImplemented
        return self.kind == other.kind and self.parts(0) == other.parts(0)

    __hash__ = None  # type: ignore[assignment]


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
        left, right = _take(parts, "left", "right")
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


class Sparse(Update):
    """Elements replaced, by their positions in the flattened tensor.

    Args:
        indices: integers [k], distinct, counted row after row; an array or torch tensor.
        values: the new values [k], in the order of `indices`: a `StoredTensor`, array or torch
            tensor.

    Raises:
        DeltaError: lengths differ, an index is negative or comes twice.
    """

    kind = "sparse"

    def __init__(self, indices: Any, values: Any) -> None:
        places = np.asarray(indices.cpu() if hasattr(indices, "cpu") else indices)
        new = StoredTensor.from_array(values)
        if places.ndim != 1 or new.shape != places.shape or new.width is None:
            raise DeltaError(
                f"a sparse update needs as many values as indices, and {list(new.shape)} values of "
                f"{new.dtype} for {list(places.shape)} indices were given"
            )
        if places.size and places.dtype.kind not in "iu":
            raise DeltaError(f"indices are integers, and {places.dtype} was given")
        order = np.argsort(places, kind="stable")
        places = places[order]
        if places.size and (int(places[0]) < 0 or bool((places[1:] == places[:-1]).any())):
            raise DeltaError("indices of a sparse update are not negative and come once each")
        self.indices: npt.NDArray[np.int64] = places.astype(np.int64)
        self.values = StoredTensor(new.dtype, new.shape, raw(new.bits()[order]))

    def __repr__(self) -> str:
        return f"Sparse({self.indices.size} elements of {self.values.dtype})"

    @classmethod
    def cost(cls, before: StoredTensor, changed: npt.NDArray[np.bool_]) -> int | None:
        """An index and a value for each element; None where an element is less than a byte."""
        if before.width is None:
            return None
        index = DTYPE_BITS[_index_dtype(before.size)] // 8
        return int(np.count_nonzero(changed)) * (index + before.width)

    @classmethod
    def between(cls, after: StoredTensor, changed: npt.NDArray[np.bool_]) -> Sparse:
        """See `Update.between`."""
        places = np.flatnonzero(changed)
        return cls(places, StoredTensor(after.dtype, places.shape, raw(after.bits()[places])))

    def stored_as(self, dtype: str) -> Sparse:
        """The same elements, their values rounded to `dtype`."""
        return Sparse(self.indices, self.values.rounded_to(dtype))

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`indices` (U32, or U64 in tensors of more than 2³² elements) and `values`."""
        dtype = _index_dtype(size)
        places = self.indices.astype("<u4" if dtype == "U32" else "<u8")
        return {
            "indices": StoredTensor(dtype, places.shape, raw(places)),
            "values": self.values,
        }

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> Sparse:
        """See `Update.from_parts`; indices must rise and lie in the tensor."""
        indices, values = _take(parts, "indices", "values")
        size = math.prod(shape)
        if len(indices.shape) != 1 or indices.shape != values.shape or not indices.size:
            raise DeltaFormatError("its indices and values are not lists of one length")
        if values.dtype != dtype or values.width is None:
            raise DeltaFormatError(f"its values are {values.dtype} and the tensor is {dtype}")
        if indices.dtype != _index_dtype(size):
            raise DeltaFormatError(f"its indices are {indices.dtype}, not {_index_dtype(size)}")
        places = indices.bits()
        if int(places[-1]) >= size or not bool((places[1:] > places[:-1]).all()):
            raise DeltaFormatError(f"its indices do not rise, or leave a tensor of {list(shape)}")
        return cls(places, values)

    def apply(self, before: StoredTensor) -> StoredTensor:
        """Write the values at their positions."""
        if self.values.dtype != before.dtype:
            raise DeltaError(
                f"a sparse update of {self.values.dtype} does not fit a tensor of {before.dtype}"
            )
        if self.indices.size and int(self.indices[-1]) >= before.size:
            raise DeltaError(
                f"element {int(self.indices[-1])} is not in a tensor of {list(before.shape)}"
            )
        bits = before.bits().copy()
        _refuse_nonfinite(bits[self.indices], self.values.bits(), before.dtype)
        bits[self.indices] = self.values.bits()
        return StoredTensor(before.dtype, before.shape, raw(bits))


class Replace(Update):
    """The whole tensor replaced by another of its dtype and shape.

    Args:
        values: a `StoredTensor`, array or torch tensor.
    """

    kind = "replace"

    def __init__(self, values: Any) -> None:
        self.values = StoredTensor.from_array(values)

    def __repr__(self) -> str:
        return f"Replace({self.values.dtype} {list(self.values.shape)})"

    @classmethod
    def cost(cls, before: StoredTensor, changed: npt.NDArray[np.bool_]) -> int | None:
        """The whole tensor."""
        return before.nbytes

    @classmethod
    def between(cls, after: StoredTensor, changed: npt.NDArray[np.bool_]) -> Replace:
        """See `Update.between`."""
        return cls(after)

    def stored_as(self, dtype: str) -> Replace:
        """The same tensor, its values rounded to `dtype`."""
        return Replace(self.values.rounded_to(dtype))

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`values`."""
        return {"values": self.values}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> Replace:
        """See `Update.from_parts`."""
        (values,) = _take(parts, "values")
        if (values.dtype, values.shape) != (dtype, shape):
            raise DeltaFormatError(
                f"it replaces {dtype} {list(shape)} by {values.dtype} {list(values.shape)}"
            )
        return cls(values)

    def apply(self, before: StoredTensor) -> StoredTensor:
        """The new tensor."""
        new = self.values
        if (new.dtype, new.shape) != (before.dtype, before.shape):
            raise DeltaError(
                f"a tensor of {before.dtype} {list(before.shape)} cannot be replaced by one of "
                f"{new.dtype} {list(new.shape)}"
            )
        if new.width is not None:
            _refuse_nonfinite(before.bits(), new.bits(), new.dtype)
        return new


_ALL: Iterable[type[Update]] = (LowRank, Sparse, Replace)
KINDS: Mapping[str, type[Update]] = {update.kind: update for update in _ALL}
"""Every kind of update by the name that a delta gives it."""


def apply(update: Update, before: StoredTensor) -> StoredTensor:
    """The tensor that an update makes of another: the same bits on every machine.

    Raises:
        DeltaError: the update does not fit the tensor, or its factors are off the grid.
        NonFiniteUpdateError: NaN or infinity would be written.
    """
    return update.apply(before)


def _misfit(left: tuple[int, ...], right: tuple[int, ...]) -> str | None:
    """Say why shapes are not those of factors, or None."""
    if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
        return f"its factors are {list(left)} and {list(right)}"
    if not 1 <= left[1] <= min(left[0], right[1]):
        return f"rank {left[1]} is not between 1 and the smaller side of {[left[0], right[1]]}"
    return None


def _take(parts: Mapping[str, StoredTensor], *names: str) -> list[StoredTensor]:
    if set(parts) != set(names):
        raise DeltaFormatError(f"it stores {sorted(parts)} instead of {sorted(names)}")
    return [parts[name] for name in names]


def _index_dtype(size: int) -> str:
    return "U32" if size <= 1 << 32 else "U64"


def _refuse_nonfinite(old: npt.NDArray[Any], new: npt.NDArray[Any], dtype: str) -> None:
    """Refuse NaN and infinity among values that are not as before."""
    if bool((nonfinite(new, dtype) & (new != old)).any()):
        raise NonFiniteUpdateError("the update would write NaN or infinity")
