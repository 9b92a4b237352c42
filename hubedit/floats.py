"""Conversions between float formats: exact, or to nearest even, defined on bit patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bits16 = npt.NDArray[np.uint16]
Bits32 = npt.NDArray[np.uint32]
Bits64 = npt.NDArray[np.uint64]
Doubles = npt.NDArray[np.float64]

NARROW = ("F32", "BF16", "F16")
"""The dtypes that float32 holds exactly, and that low-rank updates apply to."""

_PROBE = np.array([2.0**-149, 2.0**-150, 1 + 2.0**-24, 1 + 3 * 2.0**-24])
_PROBED = np.array([1, 0, 0x3F800000, 0x3F800002], dtype=np.uint32)
_SMALLEST = np.array([1], dtype=np.uint32)


def hardware_rounds_as_defined() -> bool:
    """Whether this thread keeps float32 subnormals and rounds to nearest even.

    Libraries can switch a thread to flushing subnormals (torch.set_flush_denormal, -ffast-math);
    conversions are then done on integers, which are slower and give the bits they should.
    """
    narrowed = _PROBE.astype(np.float32).view(np.uint32)
    widened = _SMALLEST.view(np.float32).astype(np.float64)
    return bool((narrowed == _PROBED).all()) and float(widened[0]) == 2.0**-149


def widen(bits: npt.NDArray[Any], dtype: str) -> Bits32:
    """Float32 bit patterns of the same values; exact.

    Args:
        bits: bit patterns of `dtype`, unsigned and of its width.
        dtype: one of `NARROW`.
    """
    if dtype == "F32":
        return bits.astype(np.uint32, copy=False)
    wide = bits.astype(np.uint32)
    if dtype == "BF16":
        return wide << np.uint32(16)
    sign, magnitude = (wide & np.uint32(0x8000)) << np.uint32(16), wide & np.uint32(0x7FFF)
    found = (magnitude << np.uint32(13)) + np.uint32(112 << 23)
    small = magnitude < 0x0400
    if small.any():
        # an integer below 2**10, times 2**-24: a normal float32 or zero
        scaled = magnitude[small].astype(np.float32) * np.float32(2.0**-24)
        found[small] = scaled.view(np.uint32)
    special = magnitude >= 0x7C00
    if special.any():
        found[special] = (magnitude[special] << np.uint32(13)) + np.uint32(224 << 23)
    return found | sign


def narrow(bits: Bits32, dtype: str) -> npt.NDArray[Any]:
    """Bit patterns of `dtype` (one of `NARROW`) nearest to float32 ones, ties to even.

    What is too large becomes infinity; a NaN keeps the payload that fits, and stays a NaN.
    """
    if dtype == "F32":
        return bits
    sign, magnitude = bits >> np.uint32(16) & np.uint32(0x8000), bits & np.uint32(0x7FFFFFFF)
    nan = magnitude > 0x7F800000
    if dtype == "BF16":
        odd = bits >> np.uint32(16) & np.uint32(1)
        found = (bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)
        if nan.any():
            kept = bits[nan] >> np.uint32(16)
            found[nan] = np.where(kept & np.uint32(0x7F), kept, kept | np.uint32(0x40))
        return found.astype(np.uint16)
    found = _half(magnitude)
    if nan.any():
        kept = magnitude[nan] >> np.uint32(13) & np.uint32(0x3FF)
        found[nan] = np.uint32(0x7C00) | np.where(kept, kept, np.uint32(0x200))
    return (found | sign).astype(np.uint16)


def _half(magnitude: Bits32) -> Bits32:
    """F16 bit patterns nearest to float32 magnitudes."""
    odd = magnitude >> np.uint32(13) & np.uint32(1)
    found: Bits32 = (magnitude + (odd + np.uint32(0xFFF))) - np.uint32(112 << 23) >> np.uint32(13)
    found = np.minimum(found, np.uint32(0x7C00))
    small = magnitude < (113 << 23)
    if small.any():
        part = magnitude[small]
        exponent = part >> np.uint32(23)
        shift = np.minimum(np.uint32(126) - exponent, np.uint32(25))
        found[small] = _shifted(part & np.uint32(0x7FFFFF) | np.uint32(0x800000), shift)
    return found


def _shifted(values: npt.NDArray[Any], shift: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Unsigned integers divided by powers of two, to nearest even; shifts are at least one."""
    one = values.dtype.type(1)
    odd = values >> shift & one
    rounded: npt.NDArray[Any] = (values + ((one << (shift - one)) - one) + odd) >> shift
    return rounded


def to_double(bits: Bits32) -> Doubles:
    """Float64 of float32 bit patterns; exact, also where the thread flushes subnormals."""
    if hardware_rounds_as_defined():
        with np.errstate(invalid="ignore"):
            return bits.view(np.float32).astype(np.float64)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    wide = magnitude.astype(np.uint64)
    found = (wide << np.uint64(29)) + np.uint64(896 << 52)
    special = magnitude >= 0x7F800000
    found[special] += np.uint64(896 << 52)
    small = magnitude < 0x00800000
    found[small] = (magnitude[small].astype(np.float64) * 2.0**-149).view(np.uint64)
    sign = (bits.astype(np.uint64) >> np.uint64(31)) << np.uint64(63)
    return (found | sign).view(np.float64)


def doubles(values: npt.NDArray[np.float32]) -> Doubles:
    """Float64 of float32 values; exact, C-contiguous."""
    return to_double(np.ascontiguousarray(values).view(np.uint32))


def from_double(values: Doubles) -> Bits32:
    """Float32 bit patterns nearest to float64 values, ties to even, subnormals kept."""
    if not hardware_rounds_as_defined():
        return from_double_by_bits(values)
    with np.errstate(all="ignore"):
        near: Bits32 = values.astype(np.float32).view(np.uint32)
    return near


def from_double_by_bits(values: Doubles) -> Bits32:
    """What `from_double` means, on integers alone."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    magnitude = bits & np.uint64((1 << 63) - 1)
    odd = magnitude >> np.uint64(29) & np.uint64(1)
    rounded = magnitude + (odd + np.uint64((1 << 28) - 1)) >> np.uint64(29)
    found = np.minimum(rounded - np.uint64(896 << 23), np.uint64(0x7F800000))
    exponent = magnitude >> np.uint64(52)
    small = exponent < 897
    if small.any():
        part = magnitude[small] & np.uint64((1 << 52) - 1) | np.uint64(1 << 52)
        shift = np.minimum(np.uint64(926) - exponent[small], np.uint64(54))
        found[small] = _shifted(part, shift)
    found[magnitude > 0x7FF << 52] = np.uint64(0x7FC00000)
    signed: Bits32 = (found | (bits >> np.uint64(63)) << np.uint64(31)).astype(np.uint32)
    return signed
