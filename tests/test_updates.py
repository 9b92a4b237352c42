"""Updates: what a tensor becomes by them, to the bit."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from exact import SPECIAL, TORCH, factors, reference, stored, weights
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hubedit.addition import add_product
from hubedit.errors import DeltaError, NonFiniteUpdateError
from hubedit.grid import grid_bits
from hubedit.updates import LowRank, StoredTensor, apply

slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


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
    dtype = draw(st.sampled_from(sorted(SPECIAL)))
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
def test_blocks_do_not_matter(dtype):
    rng = np.random.default_rng(3)
    before, update = weights(rng, dtype, (67, 31)), factors(rng, (67, 31), 9, 1e-4)
    whole = apply(update, before)
    for elements in (1, 31, 100, 1000):
        tiled = add_product(before, update.left, update.right, tile_elements=elements)
        assert tiled == whole


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


def test_the_smallest_subnormals_are_on_the_grid():
    update = LowRank([[2.0**-149], [-3 * 2.0**-149]], [[1.0, 3.0]])
    update.check_grid()
    after = apply(update, StoredTensor.from_array(np.zeros((2, 2), np.float32)))
    assert after.bits().tolist() == [1, 3, 0x80000003, 0x80000009]


def test_concatenated_updates_add_up():
    rng = np.random.default_rng(1)
    one, two = (LowRank(rng.normal(size=(6, 2)), rng.normal(size=(2, 5))) for _ in range(2))
    both = LowRank.concatenate([one, two])
    assert np.allclose(both.left @ both.right, one.left @ one.right + two.left @ two.right)
    with pytest.raises(DeltaError):
        LowRank.concatenate([one, LowRank(np.ones((5, 1)), np.ones((1, 5)))])


def test_low_rank_refuses_integers():
    with pytest.raises(DeltaError, match="I64"):
        apply(LowRank([[1.0]], [[1.0]]), StoredTensor.from_array(np.zeros((1, 1), np.int64)))


def test_the_product_of_factors_off_the_grid_is_added_as_well_as_float64_can():
    before = StoredTensor.from_array(np.ones((2, 2), np.float32))
    left = np.array([[1.0, 2.0**-30], [0, 0]], np.float32)
    after = add_product(before, left, np.ones((2, 2), np.float32))
    assert after.to_float32().tolist() == [[2, 2], [1, 1]]
