"""The kinds of update that put new values in the place of old ones: elements, lines, all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError, DeltaFormatError
from hubedit.kind import Update, refuse_nonfinite, take
from hubedit.stored import DTYPE_BITS, StoredTensor, raw


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
        places, new = whole_numbers(indices), StoredTensor.from_array(values)
        if places.ndim != 1 or new.shape != places.shape or new.width is None:
            raise DeltaError(
                f"a sparse update needs as many values as indices, and {list(new.shape)} values of "
                f"{new.dtype} for {list(places.shape)} indices were given"
            )
        order = rising(places, "indices of a sparse update")
        self.indices: npt.NDArray[np.int64] = places[order].astype(np.int64)
        self.values = StoredTensor(new.dtype, new.shape, raw(new.bits()[order]))

    def __repr__(self) -> str:
        return f"Sparse({self.indices.size} elements of {self.values.dtype})"

    @classmethod
    def cost(cls, before: StoredTensor, changed: npt.NDArray[np.bool_]) -> int | None:
        """An index and a value for each element; None where an element is less than a byte."""
        if before.width is None:
            return None
        places = np.flatnonzero(changed)
        return places.size * (_index_width(places) + before.width)

    @classmethod
    def between(
        cls, before: StoredTensor, after: StoredTensor, changed: npt.NDArray[np.bool_]
    ) -> Sparse:
        """See `Update.between`."""
        places = np.flatnonzero(changed)
        return cls(places, StoredTensor(after.dtype, places.shape, raw(after.bits()[places])))

    def stored_as(self, dtype: str) -> Sparse:
        """The same elements, their values rounded to `dtype`."""
        return Sparse(self.indices, self.values.rounded_to(dtype))

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`indices`, as narrow as the last allows, and `values`."""
        return {"indices": _stored_indices(self.indices), "values": self.values}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> Sparse:
        """See `Update.from_parts`; indices must rise and lie in the tensor."""
        indices, values = take(parts, "indices", "values")
        if values.dtype != dtype or values.width is None or len(values.shape) != 1:
            raise DeltaFormatError(f"its values are {values.dtype} and the tensor is {dtype}")
        return cls(_read_indices(indices, values.size, math.prod(shape), shape), values)

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
        refuse_nonfinite(bits[self.indices], self.values.bits(), before.dtype)
        bits[self.indices] = self.values.bits()
        return StoredTensor(before.dtype, before.shape, raw(bits))


class _Lines(Update):
    """Lines of a tensor replaced, counted along one of its axes."""

    axis: ClassVar[int]
    line: ClassVar[str]

    def __init__(self, indices: Any, values: Any) -> None:
        places, new = whole_numbers(indices), StoredTensor.from_array(values)
        rest = len(new.shape) > 1 and new.width is not None
        if places.ndim != 1 or not rest or new.shape[self.axis] != places.size:
            raise DeltaError(
                f"an update of {self.line}s needs one {self.line} of values for each index, and "
                f"values {list(new.shape)} of {new.dtype} for {list(places.shape)} indices were "
                "given"
            )
        order = rising(places, f"indices of {self.line}s")
        sorted_bits = np.take(new.bits().reshape(new.shape), order, axis=self.axis)
        self.indices: npt.NDArray[np.int64] = places[order].astype(np.int64)
        self.values = StoredTensor(new.dtype, new.shape, raw(sorted_bits))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.indices.size} of {self.values.dtype})"

    @classmethod
    def cost(cls, before: StoredTensor, changed: npt.NDArray[np.bool_]) -> int | None:
        """An index and a line for each that changed; None where the kind cannot store them."""
        if not cls._fits(before.shape) or before.width is None:
            return None
        places = np.flatnonzero(cls._touched(changed, before.shape))
        line = before.nbytes // before.shape[cls.axis]
        return places.size * (_index_width(places) + line)

    @classmethod
    def between(
        cls: type[LinesT],
        before: StoredTensor,
        after: StoredTensor,
        changed: npt.NDArray[np.bool_],
    ) -> LinesT:
        """See `Update.between`."""
        places = np.flatnonzero(cls._touched(changed, after.shape))
        bits = np.take(after.bits().reshape(after.shape), places, axis=cls.axis)
        return cls(places, StoredTensor(after.dtype, bits.shape, raw(bits)))

    @classmethod
    def _fits(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and 0 < shape[cls.axis] <= 1 << 32

    @classmethod
    def _touched(
        cls, changed: npt.NDArray[np.bool_], shape: tuple[int, ...]
    ) -> npt.NDArray[np.bool_]:
        """Which lines hold a changed element."""
        lines = np.moveaxis(changed.reshape(shape), cls.axis, 0)
        found: npt.NDArray[np.bool_] = np.asarray(lines.any(axis=tuple(range(1, len(shape)))))
        return found

    def stored_as(self: LinesT, dtype: str) -> LinesT:
        """The same lines, their values rounded to `dtype`."""
        return type(self)(self.indices, self.values.rounded_to(dtype))

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`indices`, as narrow as the last allows, and `values`."""
        return {"indices": _stored_indices(self.indices), "values": self.values}

    @classmethod
    def from_parts(
        cls: type[LinesT],
        parts: Mapping[str, StoredTensor],
        dtype: str,
        shape: tuple[int, ...],
    ) -> LinesT:
        """See `Update.from_parts`; indices must rise and lie in the tensor."""
        indices, values = take(parts, "indices", "values")
        if not cls._fits(shape):
            raise DeltaFormatError(f"a tensor of {list(shape)} has no {cls.line}s to replace")
        wanted = list(shape)
        wanted[cls.axis] = indices.size
        if (values.dtype, list(values.shape)) != (dtype, wanted) or values.width is None:
            raise DeltaFormatError(
                f"its values are {values.dtype} {list(values.shape)}, and {indices.size} "
                f"{cls.line}s of the tensor are {dtype} {wanted}"
            )
        return cls(_read_indices(indices, indices.size, shape[cls.axis], shape), values)

    def apply(self, before: StoredTensor) -> StoredTensor:
        """Write the lines at their places."""
        new = self.values
        wanted = list(before.shape)
        if self._fits(before.shape):
            wanted[self.axis] = self.indices.size
        if (new.dtype, list(new.shape)) != (before.dtype, wanted):
            raise DeltaError(
                f"{self.line}s {list(new.shape)} of {new.dtype} do not fit a tensor of "
                f"{before.dtype} {list(before.shape)}"
            )
        if self.indices.size and int(self.indices[-1]) >= before.shape[self.axis]:
            raise DeltaError(
                f"{self.line} {int(self.indices[-1])} is not in a tensor of {list(before.shape)}"
            )
        bits = before.bits().reshape(before.shape).copy()
        lines, values = np.moveaxis(bits, self.axis, 0), new.bits().reshape(new.shape)
        values = np.moveaxis(values, self.axis, 0)
        refuse_nonfinite(lines[self.indices], values, before.dtype)
        lines[self.indices] = values
        return StoredTensor(before.dtype, before.shape, raw(bits))


LinesT = TypeVar("LinesT", bound=_Lines)


class Rows(_Lines):
    """Rows replaced: what lies at some indices of the first axis.

    Args:
        indices: integers [k], distinct; an array or torch tensor.
        values: the new rows [k, …], in the order of `indices`: a `StoredTensor`, array or torch
            tensor.

    Raises:
        DeltaError: there are not as many rows as indices, an index is negative or comes twice.
    """

    kind, line, axis = "rows", "row", 0


class Columns(_Lines):
    """Columns replaced: what lies at some indices of the last axis.

    Args:
        indices: integers [k], distinct; an array or torch tensor.
        values: the new columns […, k], in the order of `indices`: a `StoredTensor`, array or torch
            tensor.

    Raises:
        DeltaError: there are not as many columns as indices, an index is negative or comes twice.
    """

    kind, line, axis = "columns", "column", -1


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
    def between(
        cls, before: StoredTensor, after: StoredTensor, changed: npt.NDArray[np.bool_]
    ) -> Replace:
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
        (values,) = take(parts, "values")
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
            refuse_nonfinite(before.bits(), new.bits(), new.dtype)
        return new


def _index_dtype(indices: npt.NDArray[Any]) -> str:
    """The narrowest unsigned dtype that holds rising indices."""
    last = int(indices[-1]) if indices.size else 0
    return next((f"U{bits}" for bits in (8, 16, 32) if last < 1 << bits), "U64")


def _index_width(indices: npt.NDArray[Any]) -> int:
    return DTYPE_BITS[_index_dtype(indices)] // 8


def _stored_indices(indices: npt.NDArray[np.int64]) -> StoredTensor:
    places = indices.astype(f"<u{_index_width(indices)}")
    return StoredTensor(_index_dtype(indices), places.shape, raw(places))


def _read_indices(
    indices: StoredTensor, count: int, end: int, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Indices of a part that rise, lie below `end`, and are as narrow as they can be.

    Raises:
        DeltaFormatError: they are not.
    """
    if indices.dtype not in ("U8", "U16", "U32", "U64") or indices.shape != (count,) or not count:
        raise DeltaFormatError("its indices are not a list of as many integers as it has values")
    places = indices.bits()
    if int(places[-1]) >= end or not bool((places[1:] > places[:-1]).all()):
        raise DeltaFormatError(f"its indices do not rise, or leave a tensor of {list(shape)}")
    if indices.dtype != _index_dtype(places):
        raise DeltaFormatError(f"its indices are {indices.dtype}, not {_index_dtype(places)}")
    return places


def whole_numbers(values: Any) -> npt.NDArray[Any]:
    """An array or torch tensor of integers.

    Raises:
        DeltaError: it holds others.
    """
    places = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if places.size and places.dtype.kind not in "iu":
        raise DeltaError(f"indices are integers, and {places.dtype} was given")
    return places


def rising(places: npt.NDArray[Any], what: str) -> npt.NDArray[np.intp]:
    """The order that sorts indices.

    Raises:
        DeltaError: one is negative, or comes twice.
    """
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    if places.size and (int(ordered[0]) < 0 or bool((ordered[1:] == ordered[:-1]).any())):
        raise DeltaError(f"{what} are not negative and come once each")
    return order
