"""A tensor as it lies in a safetensors file: dtype, shape and raw bytes."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError
from hubedit.floats import NARROW, from_double, narrow, widen

DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits per element of every dtype of the safetensors format."""

_NUMPY = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16",
    "float32": "F32", "float64": "F64", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
"""What NumPy, ml_dtypes and torch call them."""

Raw = npt.NDArray[np.uint8]


def byte_count(dtype: str, shape: Sequence[int]) -> int | None:
    """Bytes that a tensor takes, or None if the dtype is unknown or they are not whole bytes."""
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        return None
    whole, rest = divmod(math.prod(shape) * bits, 8)
    return None if rest else whole


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as it is stored.

    `dtype` is a safetensors name; `shape` counts elements; `data` is the content, little-endian,
    row after row: uint8 [nbytes], C-contiguous, read-only. Two are equal if all bits are.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Raw

    def __post_init__(self) -> None:
        shape = tuple(int(side) for side in self.shape)
        size = byte_count(self.dtype, shape)
        if self.data.dtype != np.uint8 or self.data.ndim != 1 or self.data.size != size:
            raise DeltaError(
                f"a tensor of {self.dtype} {list(shape)} takes {size} bytes, and {self.data.dtype} "
                f"{list(self.data.shape)} was given"
            )
        data = np.ascontiguousarray(self.data).view()
        data.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "data", data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StoredTensor):
            return NotImplemented
        same = (self.dtype, self.shape) == (other.dtype, other.shape)
        return same and bool(np.array_equal(self.data, other.data))

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        return self.data.size

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def width(self) -> int | None:
        """Bytes per element, or None where an element is less than a byte."""
        return DTYPE_BITS[self.dtype] // 8 or None

    def bits(self) -> npt.NDArray[Any]:
        """One unsigned integer per element: uint8, 16, 32 or 64 [size]; a read-only view.

        Raises:
            DeltaError: an element is less than a byte.
        """
        if self.width is None:
            raise DeltaError(f"elements of dtype {self.dtype} have no bytes of their own")
        return self.data.view(f"<u{self.width}")

    def units(self) -> npt.NDArray[Any]:
        """`bits()`, or the bytes where an element is less than one; a read-only view."""
        return self.data if self.width is None else self.bits()

    def sha256(self) -> str:
        """Digest (hex) of `{dtype}:{sides joined by commas}:` in ASCII, then the raw bytes."""
        digest = hashlib.sha256(digest_prefix(self.dtype, self.shape))
        digest.update(self.data.data)
        return digest.hexdigest()

    def to_float32(self) -> npt.NDArray[np.float32]:
        """The values as float32 of the same shape; exact.

        Raises:
            DeltaError: the dtype is not F32, BF16 or F16.
        """
        if self.dtype not in NARROW:
            raise DeltaError(f"a tensor of dtype {self.dtype} is not exact in float32")
        return widen(self.bits(), self.dtype).view(np.float32).reshape(self.shape)

    def rounded_to(self, dtype: str) -> StoredTensor:
        """The same values in another dtype, to nearest even: first to float32, then to `dtype`.

        Raises:
            DeltaError: both dtypes differ and are not floats of 16 to 64 bits.
        """
        if dtype == self.dtype:
            return self
        if dtype not in NARROW or self.dtype not in (*NARROW, "F64"):
            raise DeltaError(f"values of dtype {self.dtype} cannot be stored as {dtype}")
        if self.dtype == "F64":
            wide = from_double(self.data.view("<f8"))
        else:
            wide = widen(self.bits(), self.dtype)
        return StoredTensor(dtype, self.shape, raw(narrow(wide, dtype)))

    @classmethod
    def from_array(cls, array: Any) -> StoredTensor:
        """The content of an array or torch tensor, or of what NumPy makes an array of.

        Raises:
            DeltaError: safetensors has no such dtype.
        """
        if isinstance(array, StoredTensor):
            return array
        if hasattr(array, "detach"):
            return cls._from_torch(array.detach().cpu().contiguous())
        plain = np.asarray(array)
        dtype = _NUMPY.get(plain.dtype.name)
        if dtype is None:
            raise DeltaError(f"arrays of dtype {plain.dtype} cannot be stored in safetensors")
        little = plain.astype(plain.dtype.newbyteorder("<"), order="C", copy=False)
        return cls(dtype, plain.shape, raw(little).copy())

    @classmethod
    def _from_torch(cls, tensor: Any) -> StoredTensor:
        dtype = _NUMPY.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is None:
            raise DeltaError(f"tensors of dtype {tensor.dtype} cannot be stored in safetensors")
        # whoever holds a tensor has loaded torch; importing it here would cost everyone else
        whole: Any = sys.modules["torch"].uint8
        data = tensor.reshape(-1).view(whole).numpy()
        return cls(dtype, tuple(tensor.shape), np.array(data, dtype=np.uint8))


def digest_prefix(dtype: str, shape: Sequence[int]) -> bytes:
    """What precedes the raw bytes in a tensor's digest."""
    return f"{dtype}:{','.join(str(side) for side in shape)}:".encode("ascii")


def raw(array: npt.NDArray[Any]) -> Raw:
    """The bytes of a little-endian array, uint8 [nbytes]; a view where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def float_array(values: Any) -> npt.NDArray[np.float32]:
    """An array or torch tensor of floats as float32, C-contiguous, of the same shape; a copy.

    Raises:
        DeltaError: it is not an array of floats.
    """
    stored = StoredTensor.from_array(values)
    if stored.dtype not in (*NARROW, "F64"):
        raise DeltaError(f"floats are needed, and values of dtype {stored.dtype} were given")
    return stored.rounded_to("F32").data.view("<f4").reshape(stored.shape).copy()


def nonfinite(bits: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.bool_]:
    """Which bit patterns are NaN or infinite; none unless the dtype is F16, BF16, F32 or F64."""
    exponent = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000, "F64": 0x7FF << 52}.get(dtype)
    if exponent is None:
        return np.zeros(bits.shape, dtype=np.bool_)
    mask = bits.dtype.type(exponent)
    found: npt.NDArray[np.bool_] = bits & mask == mask
    return found
