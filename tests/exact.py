"""The addition of a product in rational arithmetic, and cases for it."""

from fractions import Fraction

import numpy as np
import torch

from hubedit.updates import LowRank, StoredTensor

TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
FORMATS = {"F32": (24, -149, 128), "BF16": (8, -133, 128), "F16": (11, -24, 16)}
"""Precision in bits, exponent of the smallest unit, exponent of the first magnitude too large."""
SPECIAL = {
    "F32": [0, 0x80000000, 1, 0x80000001, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000],
    "BF16": [0, 0x8000, 1, 0x8001, 0x7F, 0x80, 0x7F7F, 0xFF7F, 0x3F80],
    "F16": [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x3C00],
}


def value_of(bits: int, dtype: str) -> Fraction:
    """The number that a finite bit pattern stands for."""
    precision, least, _ = FORMATS[dtype]
    width = 32 if dtype == "F32" else 16
    magnitude = bits & (1 << (width - 1)) - 1
    exponent, fraction = magnitude >> precision - 1, magnitude & (1 << precision - 1) - 1
    if exponent:
        fraction |= 1 << precision - 1
    number = fraction * Fraction(2) ** (least + max(exponent, 1) - 1)
    return -number if bits >> (width - 1) else number


def nearest(number: Fraction, precision: int, least: int) -> Fraction:
    """The nearest number of so many bits, ties to even."""
    if not number:
        return number
    magnitude = abs(number)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - precision + 1, least)
    return round(number / unit) * unit


def bits_of(number: Fraction, negative: bool, dtype: str) -> int | None:
    """The bit pattern of a number that the dtype holds; None if it is too large."""
    precision, least, too_large = FORMATS[dtype]
    magnitude = abs(number)
    if magnitude >= Fraction(2) ** too_large:
        return None
    sign = negative << (31 if dtype == "F32" else 15)
    units = magnitude / Fraction(2) ** least
    if units < 1 << precision:
        return sign | int(units)
    shift = int(units).bit_length() - precision
    return sign | (int(units) >> shift) + (shift << precision - 1)


def reference(before: StoredTensor, left: np.ndarray, right: np.ndarray) -> list[int] | None:
    """The addition in rational arithmetic; None where something would not be finite."""
    rows, columns = before.shape
    tall = [[Fraction(float(x)) for x in row] for row in left]
    wide = [[Fraction(float(x)) for x in column] for column in right.T]
    found = []
    for place, bits in enumerate(before.bits().tolist()):
        row, column = divmod(place, columns)
        product = sum((a * b for a, b in zip(tall[row], wide[column], strict=True)), Fraction(0))
        if not product:
            found.append(bits)
            continue
        total = nearest(value_of(bits, before.dtype) + product, 53, -1074)
        single = nearest(total, 24, -149)
        new = bits_of(nearest(single, *FORMATS[before.dtype][:2]), total < 0, before.dtype)
        if new is None or abs(single) >= Fraction(2) ** 128:
            return None
        found.append(new)
    assert len(found) == rows * columns
    return found


def stored(bits: np.ndarray, dtype: str) -> StoredTensor:
    return StoredTensor(dtype, bits.shape, np.ascontiguousarray(bits).reshape(-1).view(np.uint8))


def weights(rng: np.random.Generator, dtype: str, shape: tuple[int, int]) -> StoredTensor:
    """Finite weights: usual ones, any bit pattern, and the edges of the dtype."""
    plain = StoredTensor.from_array(
        torch.from_numpy(rng.normal(0, 0.02, shape)).to(TORCH[dtype])
    ).bits()
    any_bits = rng.integers(0, 1 << (8 * plain.itemsize), plain.size, dtype=np.uint64)
    any_bits = any_bits.astype(plain.dtype)
    special = rng.choice(np.array(SPECIAL[dtype], dtype=plain.dtype), plain.size)
    chosen = np.choose(rng.integers(0, 3, plain.size), [plain, any_bits, special])
    values = stored(chosen, dtype).to_float32()
    return stored(np.where(np.isfinite(values), chosen, plain).reshape(shape), dtype)


def factors(rng: np.random.Generator, shape: tuple[int, int], rank: int, scale: float) -> LowRank:
    left = rng.normal(size=(shape[0], rank)) * np.exp2(rng.integers(-20, 3, (1, rank)))
    right = rng.normal(size=(rank, shape[1])) * np.exp2(rng.integers(-3, 20, (rank, 1))) * scale
    left[rng.random(left.shape[0]) < 0.2] = 0
    return LowRank(left, right).rounded()[0]
