"""Updates: what a tensor becomes by them, to the bit."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hubedit import addition
from hubedit.addition import add_product
from hubedit.errors import DeltaError, NonFiniteUpdateError
from hubedit.floats import from_double, from_double_by_bits, narrow, to_double, widen
from hubedit.grid import grid_bits
from hubedit.updates import LowRank, Replace, Sparse, StoredTensor, apply

TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
FORMATS = {"F32": (24, -149, 128), "BF16": (8, -133, 128), "F16": (11, -24, 16)}
"""Precision in bits, exponent of the smallest unit, exponent of the first magnitude too large."""
SPECIAL = {
    "F32": [0, 0x80000000, 1, 0x80000001, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000],
    "BF16": [0, 0x8000, 1, 0x8001, 0x7F, 0x80, 0x7F7F, 0xFF7F, 0x3F80],
    "F16": [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x3C00],
}
slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize(
    ("shape", "rank"),
    [((1, 1), 1), ((3, 7), 1), ((17, 5), 5), ((33, 41), 32), ((33, 35), 33), ((64, 65), 64)],
)
@pytest.mark.parametrize("scale", [1e-3, 1e-30])
def test_low_rank_is_the_exact_sum_rounded_as_defined(dtype, shape, rank, scale):
    rng = np.random.default_rng([*shape, rank, len(dtype)])
    before, update = weights(rng, dtype, shape), factors(rng, shape, rank, scale)
    expected = reference(before, update.left, update.right)
    if expected is None:
        with pytest.raises(NonFiniteUpdateError):
            apply(update, before)
    else:
        assert apply(update, before).bits().tolist() == expected


@st.composite
def small_cases(draw):
    dtype = draw(st.sampled_from(sorted(FORMATS)))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rank = draw(st.integers(1, min(rows, columns)))
    single = st.integers(0, 0xFFFFFFFF).map(lambda bits: np.uint32(bits).view(np.float32))
    usual = st.floats(-4, 4, width=32).map(np.float32)
    entry = st.one_of(usual, single.filter(np.isfinite), st.just(np.float32(0)))
    left = [[draw(entry) for _ in range(rank)] for _ in range(rows)]
    right = [[draw(entry) for _ in range(columns)] for _ in range(rank)]
    width = 32 if dtype == "F32" else 16
    pattern = st.one_of(st.sampled_from(SPECIAL[dtype]), st.integers(0, (1 << width) - 1))
    bits = [draw(pattern) for _ in range(rows * columns)]
    return dtype, np.array(left), np.array(right), bits, (rows, columns)


@given(small_cases())
@settings(slow, max_examples=300)
def test_low_rank_of_any_bits_is_the_exact_sum(case):
    dtype, left, right, bits, shape = case
    before = stored(np.array(bits, dtype=f"u{4 if dtype == 'F32' else 2}").reshape(shape), dtype)
    assume(np.isfinite(before.to_float32()).all())
    try:
        update, _ = LowRank(left, right).rounded()
    except NonFiniteUpdateError:
        return
    expected = reference(before, update.left, update.right)
    if expected is None:
        with pytest.raises(NonFiniteUpdateError):
            apply(update, before)
    else:
        assert apply(update, before).bits().tolist() == expected


@given(small_cases())
@settings(slow, max_examples=300)
def test_rounded_factors_are_on_the_grid(case):
    _, left, right, _, _ = case
    try:
        update, error = LowRank(left, right).rounded()
    except NonFiniteUpdateError:
        return
    update.check_grid()
    bits = grid_bits(update.rank)
    for row in [*update.left.tolist(), *update.right.T.tolist()]:
        largest = max(abs(Fraction(entry)) for entry in row)
        exponent = bits - 149
        while largest > Fraction(2) ** exponent:
            exponent += 1
        assert all(Fraction(entry) % Fraction(2) ** (exponent - bits) == 0 for entry in row)
    assert error.overall >= 0
    assert error.component >= 0


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_blocks_do_not_matter(dtype, monkeypatch):
    rng = np.random.default_rng(3)
    before, update = weights(rng, dtype, (67, 31)), factors(rng, (67, 31), 9, 1e-4)
    whole = apply(update, before)
    for elements in (1, 31, 100, 1000):
        monkeypatch.setattr(addition, "TILE_ELEMENTS", elements)
        assert apply(update, before) == whole


@pytest.mark.parametrize("rank", [1, 2, 31, 32, 33, 60])
def test_the_order_of_rank_terms_does_not_matter(rank):
    rng = np.random.default_rng(rank)
    left = rng.normal(size=(80, rank)) * np.exp2(rng.integers(-9, 9, rank))
    right = rng.normal(size=(rank, 61)) * 1e-4
    before = weights(rng, "BF16", (80, 61))
    order = rng.permutation(rank)
    one, _ = LowRank(left, right).rounded()
    other, _ = LowRank(left[:, order], right[order]).rounded()
    assert np.array_equal(one.left[:, order], other.left)
    assert apply(one, before) == apply(other, before)


def test_the_product_is_exact_in_any_order_of_summation():
    rng = np.random.default_rng(7)
    update = factors(rng, (50, 40), 37, 1.0)
    left, right = update.left.astype(np.float64), update.right.astype(np.float64)
    forward, backward = np.zeros((50, 40)), np.zeros((50, 40))
    for k in range(37):
        forward += np.outer(left[:, k], right[k])
        backward += np.outer(left[:, 36 - k], right[36 - k])
    assert np.array_equal(forward, left @ right)
    assert np.array_equal(backward, left @ right)
    assert np.array_equal(np.einsum("ik,kj->ij", left, right), left @ right)


DIGEST = """
import numpy as np
from hubedit.updates import LowRank, StoredTensor, apply
rng = np.random.default_rng(0)
before = StoredTensor("BF16", (700, 600), rng.integers(0, 63, 840000, dtype=np.uint8))
left, right = rng.normal(size=(700, 90)), rng.normal(size=(90, 600)) * 1e-3
print(apply(LowRank(left, right).rounded()[0], before).sha256())
import sys
assert "torch" not in sys.modules
"""


def test_threads_do_not_matter_and_torch_is_not_needed():
    found = set()
    for threads, kernel in (("1", "Haswell"), ("2", "Nehalem")):
        counts = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, **counts, "OPENBLAS_CORETYPE": kernel},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_torch_computes_the_same_bits(dtype):
    rng = np.random.default_rng(11)
    plain = torch.from_numpy(rng.normal(0, 0.02, (300, 200))).to(TORCH[dtype])
    update = factors(rng, (300, 200), 40, 1e-4)
    product = torch.from_numpy(update.left).double() @ torch.from_numpy(update.right).double()
    moved = (plain.double() + product).float().to(TORCH[dtype])
    expected = torch.where(product == 0, plain, moved)
    assert apply(update, StoredTensor.from_array(plain)) == StoredTensor.from_array(expected)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_subnormals_are_kept_where_the_thread_flushes_them(dtype):
    rng = np.random.default_rng(5)
    before = weights(rng, dtype, (40, 30))
    given = LowRank(rng.normal(size=(40, 3)) * [1, 2**-140, 1], rng.normal(size=(3, 30)) * 1e-40)
    expected = apply(given.rounded()[0], before)
    assert torch.set_flush_denormal(True)
    try:
        update, _ = given.rounded()
        found = apply(update, before)
    finally:
        torch.set_flush_denormal(False)
    assert update.rank == 3
    assert update == given.rounded()[0]
    assert found == expected


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_bits_stay_where_the_product_is_zero(dtype):
    width = np.uint32 if dtype == "F32" else np.uint16
    infinite = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}[dtype]
    negative_zero = 1 << (31 if dtype == "F32" else 15)
    row = [negative_zero, infinite, infinite | negative_zero, infinite + 1, infinite + 3, 1, 0]
    before = stored(np.array([row, row], dtype=width), dtype)
    for zero in (0.0, -0.0):
        assert apply(LowRank([[0.0], [zero]], [[1.0, -1.0] + [1.0] * 5]), before) == before


@pytest.mark.parametrize(
    ("dtype", "bits", "update"),
    [
        ("F32", 0x7F800000, 1.0),
        ("F32", 0x7FC00001, 1.0),
        ("F32", 0x7F7FFFFF, 2.0**120),
        ("BF16", 0x7F80, 1.0),
        ("BF16", 0x7F7F, 2.0**127),
        ("F16", 0x7C00, 1.0),
        ("F16", 0x7BFF, 16.0),
    ],
)
def test_what_is_not_finite_is_refused(dtype, bits, update):
    before = stored(np.array([[bits]], dtype="u4" if dtype == "F32" else "u2"), dtype)
    with pytest.raises(NonFiniteUpdateError):
        apply(LowRank([[update]], [[1.0]]), before)


def test_float16_just_below_its_limit_is_kept():
    before = stored(np.array([[0x7BFF]], dtype=np.uint16), "F16")
    assert apply(LowRank([[15.0]], [[1.0]]), before) == before


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
        assert np.isnan(stored(narrow(bits, dtype)[~number], dtype).to_float32()).all()


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


@given(st.integers(1, 1 << 20))
def test_sums_of_products_on_the_grid_stay_below_two_to_53(rank):
    bits = grid_bits(rank)
    assert rank * 2 ** (2 * bits) <= 2**53
    assert bits == 24 or rank * 2 ** (2 * bits + 2) > 2**51


def test_the_grid_holds_usual_factors_to_seven_digits():
    rng = np.random.default_rng(8)
    for rank in (1, 8, 64):
        left, right = rng.normal(size=(200, rank)), rng.normal(size=(rank, 300))
        _, error = LowRank(left * 1e6, right * 1e-9).rounded()
        assert error.overall < 1e-6
        assert error.component < 1e-6


def test_grid_error_is_that_of_the_products():
    rng = np.random.default_rng(9)
    left = rng.normal(size=(60, 4)) * [1, 1e-3, 1e-6, 1e3]
    update = LowRank(left, rng.normal(size=(4, 50)))
    near, error = update.rounded()
    exact = update.left.astype(np.float64) @ update.right.astype(np.float64)
    moved = near.left.astype(np.float64) @ near.right.astype(np.float64) - exact
    assert error.overall == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(exact), rel=1e-3)
    worst = max(
        np.linalg.norm(
            np.outer(near.left[:, k].astype(np.float64), near.right[k].astype(np.float64))
            - np.outer(update.left[:, k].astype(np.float64), update.right[k].astype(np.float64))
        )
        / np.linalg.norm(np.outer(update.left[:, k], update.right[k]))
        for k in range(4)
    )
    assert error.component == pytest.approx(worst, rel=1e-3)


def test_components_are_balanced_before_they_are_rounded():
    left, right = np.array([[1e-20, 1.0], [2e-20, 3.0]]), np.array([[1e20, 3e20], [1.0, 2.0]])
    near, error = LowRank(left, right).rounded()
    assert error.component < 1e-6
    assert np.linalg.norm(near.left[:, 0]) == pytest.approx(np.linalg.norm(near.right[0]), rel=1)


def test_components_of_zero_are_left_out():
    near, _ = LowRank([[1.0, 0.0], [2.0, 0.0]], [[1.0, 1.0], [5.0, 5.0]]).rounded()
    assert near == LowRank([[1.0], [2.0]], [[1.0, 1.0]])
    nothing, error = LowRank(np.zeros((3, 2)), np.zeros((2, 3))).rounded()
    assert nothing.rank == 1
    assert error.overall == 0


def test_factors_off_the_grid_are_not_applied():
    update = LowRank([[1.0, 2.0**-30], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(DeltaError, match="row of left"):
        apply(update, StoredTensor.from_array(np.zeros((2, 2), np.float32)))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros((3, 0)), np.zeros((0, 3))),
        (np.zeros((3, 4)), np.zeros((4, 5))),
        (np.zeros((3, 2)), np.zeros((1, 3))),
        (np.zeros(3), np.zeros((1, 3))),
        (np.zeros((3, 1), np.int64), np.zeros((1, 3))),
    ],
)
def test_low_rank_refuses_factors_that_do_not_fit(left, right):
    with pytest.raises(DeltaError):
        LowRank(left, right)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_rounding_refuses_what_is_not_finite(value):
    with pytest.raises(NonFiniteUpdateError), np.errstate(over="ignore"):
        LowRank([[value]], [[1.0]]).rounded()


def test_concatenated_updates_add_up():
    rng = np.random.default_rng(1)
    one, two = (LowRank(rng.normal(size=(6, 2)), rng.normal(size=(2, 5))) for _ in range(2))
    both = LowRank.concatenate([one, two])
    assert np.allclose(both.left @ both.right, one.left @ one.right + two.left @ two.right)
    with pytest.raises(DeltaError):
        LowRank.concatenate([one, LowRank(np.ones((5, 1)), np.ones((1, 5)))])


def test_sparse_writes_its_elements_in_any_order_given():
    before = StoredTensor.from_array(np.zeros((2, 3), np.float32))
    after = apply(Sparse([5, 1], np.array([2, 7], np.float32)), before)
    assert after.to_float32().tolist() == [[0, 7, 0], [0, 0, 2]]


@pytest.mark.parametrize("indices", [[1, 1], [-1, 0], [0.5, 1.5], [[0, 1]], [0]])
def test_sparse_refuses_indices_that_name_no_two_elements(indices):
    with pytest.raises(DeltaError):
        Sparse(indices, np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "update",
    [
        Sparse([6], np.ones(1, np.float32)),
        Sparse([0], np.ones(1, np.float16)),
        Replace(np.ones((3, 2), np.float32)),
        Replace(np.ones((2, 3), np.float16)),
        LowRank(np.ones((3, 1)), np.ones((1, 2))),
    ],
)
def test_an_update_of_another_shape_or_dtype_is_refused(update):
    with pytest.raises(DeltaError):
        apply(update, StoredTensor.from_array(np.zeros((2, 3), np.float32)))


@pytest.mark.parametrize("update", [Sparse, lambda indices, values: Replace(values)])
def test_nan_is_refused_unless_it_was_there(update):
    infinite = StoredTensor.from_array(np.array([np.inf, 1], np.float32))
    with pytest.raises(NonFiniteUpdateError):
        apply(update([0, 1], np.array([np.inf, np.nan], np.float32)), infinite)
    after = apply(update([0, 1], np.array([np.inf, 2], np.float32)), infinite)
    assert after.to_float32().tolist() == [np.inf, 2]


def test_low_rank_refuses_integers():
    with pytest.raises(DeltaError, match="I64"):
        apply(LowRank([[1.0]], [[1.0]]), StoredTensor.from_array(np.zeros((1, 1), np.int64)))


def test_a_digest_is_of_dtype_shape_and_bytes():
    import hashlib

    tensor = StoredTensor.from_array(torch.arange(6).reshape(2, 3).to(torch.bfloat16))
    raw_bytes = b"\x00\x00\x80\x3f\x00\x40\x40\x40\x80\x40\xa0\x40"
    assert tensor.data.tobytes() == raw_bytes
    assert tensor.sha256() == hashlib.sha256(b"BF16:2,3:" + raw_bytes).hexdigest()
    flat = StoredTensor("BF16", (6,), tensor.data)
    assert flat.sha256() != tensor.sha256()


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.bool, "BOOL"), (torch.uint8, "U8"), (torch.int8, "I8"), (torch.int16, "I16"),
        (torch.int32, "I32"), (torch.int64, "I64"), (torch.float16, "F16"),
        (torch.bfloat16, "BF16"), (torch.float32, "F32"), (torch.float64, "F64"),
        (torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"),
        (torch.complex64, "C64"), (torch.uint16, "U16"),
    ],
)  # fmt: skip
def test_torch_tensors_are_stored_as_safetensors_stores_them(dtype, name, tmp_path):
    from safetensors.torch import save

    tensor = torch.arange(6).reshape(2, 3).to(dtype).t()
    found = StoredTensor.from_array(tensor.requires_grad_(dtype.is_floating_point))
    assert (found.dtype, found.shape) == (name, (3, 2))
    assert save({"x": tensor.detach().contiguous()}).endswith(found.data.tobytes())


def test_a_stored_tensor_refuses_bytes_that_do_not_fit():
    for dtype, shape in (("F32", (2,)), ("BF16", (3,)), ("F4", (9,)), ("F12", (4,))):
        with pytest.raises(DeltaError):
            StoredTensor(dtype, shape, np.zeros(4, np.uint8))
    with pytest.raises(DeltaError):
        StoredTensor.from_array(np.array(["text"]))


def test_a_stored_tensor_cannot_be_written_to():
    tensor = StoredTensor.from_array(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="read-only"):
        tensor.data[0] = 1


def test_the_product_of_factors_off_the_grid_is_added_as_well_as_float64_can():
    before = StoredTensor.from_array(np.ones((2, 2), np.float32))
    left = np.array([[1.0, 2.0**-30], [0, 0]], np.float32)
    after = add_product(before, left, np.ones((2, 2), np.float32))
    assert after.to_float32().tolist() == [[2, 2], [1, 1]]
