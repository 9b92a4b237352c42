"""Conversions between float formats agree with torch and the hardware, bit for bit."""

import numpy as np
import torch

from hubedit.floats import from_double, from_double_by_bits, narrow, to_double, widen
from hubedit.updates import StoredTensor

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16}


def test_every_half_float_widens_and_narrows_as_torch_does():
    every = np.arange(1 << 16, dtype=np.uint16)
    for dtype in ("BF16", "F16"):
        wide = widen(every, dtype)
        as_torch = torch.from_numpy(every.view(np.int16).copy()).view(TORCH[dtype]).float()
        finite = torch.isfinite(as_torch).numpy()
        expected = as_torch.numpy().view(np.uint32)
        assert np.array_equal(wide[finite], expected[finite])
        assert np.array_equal(narrow(wide, dtype), every)


def test_narrowing_rounds_to_even_as_torch_does():
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 1 << 32, 400_000, dtype=np.uint32)
    bits[:100_000] &= 0xFFFF8000  # ties of BF16
    bits[100_000:200_000] &= 0xFFFFF000  # ties of F16
    bits[200_000:300_000] = bits[200_000:300_000] & 0x83FFFFFF | 0x34000000  # subnormal F16
    numbers = torch.from_numpy(bits.view(np.float32).copy())
    number = ~torch.isnan(numbers).numpy()
    for dtype in ("BF16", "F16"):
        expected = numbers.to(TORCH[dtype]).view(torch.int16).numpy().view(np.uint16)
        assert np.array_equal(narrow(bits, dtype)[number], expected[number])
        nan = narrow(bits, dtype)[~number]
        assert np.isnan(StoredTensor(dtype, nan.shape, nan.view(np.uint8)).to_float32()).all()


def test_float32_of_float64_on_integers_is_that_of_the_hardware():
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 1 << 64, 300_000, dtype=np.uint64)
    around = np.uint64(1023 << 52) + rng.integers(-160 << 52, 130 << 52, 300_000).astype(np.uint64)
    ties = around & np.uint64(0xFFFFFFFFF0000000)
    doubles = np.concatenate([bits, around, ties]).view(np.float64)
    doubles = doubles[~np.isnan(doubles)]
    assert np.array_equal(from_double_by_bits(doubles), from_double(doubles))
    singles = from_double(doubles)
    plain = singles.view(np.float32).astype(np.float64)
    torch.set_flush_denormal(True)
    try:
        by_integers = to_double(singles)
    finally:
        torch.set_flush_denormal(False)
    assert np.array_equal(by_integers.view(np.uint64), plain.view(np.uint64))
