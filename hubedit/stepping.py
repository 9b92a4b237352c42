"""The kinds of update that store how far each bit pattern moved, packed without loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError, DeltaFormatError
from hubedit.kind import Update, refuse_nonfinite, take
from hubedit.packing import content_size, pack, unpack
from hubedit.stored import DTYPE_BITS, StoredTensor, raw

Bits = npt.NDArray[Any]


class Packed(Update):
    """The step of every element: its new bit pattern less its old one, as integers.

    Steps are folded, so that small ones of either sign have small patterns, and packed by byte
    planes. A step can be taken back as well as taken.

    Args:
        steps: the frame, U8 [n], as `packing.pack` makes it.
    """

    kind = "packed"

    def __init__(self, steps: StoredTensor) -> None:
        self.steps = steps

    def __repr__(self) -> str:
        return f"Packed({self.steps.nbytes} bytes)"

    @classmethod
    def between(
        cls, before: StoredTensor, after: StoredTensor, changed: npt.NDArray[np.bool_]
    ) -> Packed:
        """See `Update.between`."""
        return cls(pack(folded(before.units(), after.units())))

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`steps`."""
        return {"steps": self.steps}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> Packed:
        """See `Update.from_parts`; the frame must unpack to the tensor's size."""
        (steps,) = take(parts, "steps")
        count, width = _units(dtype, shape)
        if content_size(steps) != count * width:
            raise DeltaFormatError(f"its steps are not those of a tensor of {list(shape)}")
        return cls(steps)

    def apply(self, before: StoredTensor) -> StoredTensor:
        """Take every step."""
        old = before.units()
        new = np.empty_like(old)
        for part, steps in unpack(self.steps, old.itemsize, old.size).blocks():
            new[part] = old[part] + unfolded(steps)
            refuse_nonfinite(old[part], new[part], before.dtype)
        return StoredTensor(before.dtype, before.shape, raw(new))

    def undo(self, after: StoredTensor) -> StoredTensor:
        """Take every step back."""
        new = after.units()
        old = np.empty_like(new)
        for part, steps in unpack(self.steps, new.itemsize, new.size).blocks():
            old[part] = new[part] - unfolded(steps)
        return StoredTensor(after.dtype, after.shape, raw(old))


class SparsePacked(Update):
    """The steps of some elements, and how many lie between them; see `Packed`.

    Args:
        gaps: frame of the number of elements before the first, and between one and the next.
        steps: frame of the folded steps.
    """

    kind = "sparse_packed"

    def __init__(self, gaps: StoredTensor, steps: StoredTensor) -> None:
        self.gaps, self.steps = gaps, steps

    def __repr__(self) -> str:
        return f"SparsePacked({self.gaps.nbytes + self.steps.nbytes} bytes)"

    @classmethod
    def between(
        cls, before: StoredTensor, after: StoredTensor, changed: npt.NDArray[np.bool_]
    ) -> SparsePacked:
        """See `Update.between`."""
        places = np.flatnonzero(changed)
        gaps = np.diff(places, prepend=-1) - 1
        steps = folded(before.units()[places], after.units()[places])
        return cls(pack(gaps.astype(_gap_type(changed.size))), pack(steps))

    def parts(self, size: int) -> Mapping[str, StoredTensor]:
        """`gaps` and `steps`."""
        return {"gaps": self.gaps, "steps": self.steps}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, StoredTensor], dtype: str, shape: tuple[int, ...]
    ) -> SparsePacked:
        """See `Update.from_parts`; the frames must unpack to one number of elements."""
        gaps, steps = take(parts, "gaps", "steps")
        size, width = _units(dtype, shape)
        count, rest = divmod(content_size(steps), width)
        if rest or not 1 <= count <= size:
            raise DeltaFormatError(f"its steps are not those of elements of {dtype} {list(shape)}")
        if content_size(gaps) != count * np.dtype(_gap_type(size)).itemsize:
            raise DeltaFormatError("its gaps are not as many as its steps")
        return cls(gaps, steps)

    def apply(self, before: StoredTensor) -> StoredTensor:
        """Take the steps at their places."""
        new = before.units().copy()
        for places, steps in self._blocks(new):
            old = new[places]
            new[places] = old + steps
            refuse_nonfinite(old, new[places], before.dtype)
        return StoredTensor(before.dtype, before.shape, raw(new))

    def undo(self, after: StoredTensor) -> StoredTensor:
        """Take the steps back."""
        old = after.units().copy()
        for places, steps in self._blocks(old):
            old[places] -= steps
        return StoredTensor(after.dtype, after.shape, raw(old))

    def _blocks(self, bits: Bits) -> Iterator[tuple[Bits, Bits]]:
        """Places and steps, some at a time; refused unless places rise and are in the tensor."""
        count, rest = divmod(content_size(self.steps), bits.itemsize)
        if rest or count > bits.size:
            raise DeltaError("its steps are more than the elements of the tensor")
        gaps = unpack(self.gaps, np.dtype(_gap_type(bits.size)).itemsize, count)
        steps, reached = unpack(self.steps, bits.itemsize, count), 0
        for part, block in gaps.blocks():
            if int(block.max()) >= bits.size:
                raise DeltaError(f"its gaps leave a tensor of {bits.size} elements")
            ends = np.cumsum(block.astype(np.uint64) + np.uint64(1), dtype=np.uint64)
            last = reached + int(ends[-1])
            if last > bits.size or not bool((ends[1:] > ends[:-1]).all()):
                raise DeltaError(f"its gaps leave a tensor of {bits.size} elements")
            yield ends.astype(np.int64) + (reached - 1), unfolded(steps[part])
            reached = last


def folded(old: Bits, new: Bits) -> Bits:
    """Differences of bit patterns modulo 2^w, those of either sign in turn: 0, −1, 1, −2, …"""
    step = new - old
    sign = step >> step.dtype.type(8 * step.itemsize - 1)
    found: Bits = (step << step.dtype.type(1)) ^ (np.zeros_like(sign) - sign)
    return found


def unfolded(steps: Bits) -> Bits:
    """The differences that were folded."""
    one = steps.dtype.type(1)
    found: Bits = (steps >> one) ^ (np.zeros_like(steps) - (steps & one))
    return found


def _gap_type(size: int) -> str:
    return "<u4" if size <= 1 << 32 else "<u8"


def _units(dtype: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many units `StoredTensor.units` has, and bytes of each."""
    bits = DTYPE_BITS[dtype]
    size = math.prod(shape)
    return (size, bits // 8) if bits >= 8 else (size * bits // 8, 1)
