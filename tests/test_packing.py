"""Packed kinds: exact for any bits, bounded by what was declared, and small."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubedit.choosing import choose
from hubedit.errors import DeltaError, DeltaFormatError, NonFiniteUpdateError
from hubedit.packing import content_size, pack, unpack, zstd
from hubedit.stepping import Packed, SparsePacked, folded, unfolded
from hubedit.stored import DTYPE_BITS, byte_count
from hubedit.updates import LowRank, LowRankPacked, StoredTensor, apply

WIDTHS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def frame(content: bytes) -> StoredTensor:
    data = np.frombuffer(content, np.uint8)
    return StoredTensor("U8", data.shape, data)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(WIDTHS)), st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_any_step_between_any_bits_is_taken_and_taken_back(width, seed, count):
    rng, dtype = np.random.default_rng(seed), WIDTHS[width]
    old, new = (rng.integers(0, 2 ** (8 * width) - 1, count, dtype=dtype) for _ in range(2))
    steps = folded(old, new)
    assert (old + unfolded(steps) == new).all()
    assert (unpack(pack(steps), width, count)[:] == steps).all()


def test_small_steps_of_either_sign_have_small_patterns():
    old = np.full(5, 7, np.uint16)
    assert folded(old, np.array([7, 6, 8, 5, 9], np.uint16)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
@pytest.mark.parametrize("kind", [Packed, SparsePacked])
def test_every_dtype_is_packed_exactly(dtype, kind):
    rng = np.random.default_rng(0)
    shape = (16, 31)
    nbytes = byte_count(dtype, shape)
    before = StoredTensor(dtype, shape, rng.integers(0, 0x70, nbytes, dtype=np.uint8))
    moved = before.units() + (rng.random(before.units().size) < 0.3).astype(np.uint8)
    after = StoredTensor(dtype, shape, moved.view(np.uint8))
    update = kind.between(before, after, before.units() != after.units())
    again = kind.from_parts(update.parts(0), dtype, shape)
    assert again == update
    assert again.apply(before) == after
    assert again.undo(after) == before


def test_a_frame_of_another_size_is_refused_before_it_is_unpacked():
    bomb = frame(zstd.compress(bytes(1 << 26)))
    assert bomb.nbytes < 1 << 14
    with pytest.raises(DeltaFormatError, match="not those of a tensor"):
        Packed.from_parts({"steps": bomb}, "F32", (8, 8))
    with pytest.raises(DeltaFormatError, match="not those of elements"):
        SparsePacked.from_parts({"gaps": bomb, "steps": bomb}, "F32", (8, 8))
    with pytest.raises(DeltaFormatError, match="as many as"):
        SparsePacked.from_parts({"gaps": bomb, "steps": pack(np.ones(4, np.uint32))}, "F32", (8, 8))
    with pytest.raises(DeltaError, match="does not hold"):
        unpack(bomb, 4, 16)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x28\xb5\x2f\xfd", b"no frame at all", zstd.ZstdCompressor().compress(bytes(64))],
)
def test_what_is_no_frame_of_a_known_size_is_refused(content):
    with pytest.raises(DeltaFormatError):
        content_size(frame(content))


def test_more_than_one_frame_is_refused():
    one = zstd.compress(bytes(64))
    for content in (one + one, one + b"\0", one[:-1]):
        with pytest.raises(DeltaError):
            unpack(frame(content), 4, 16)


def test_gaps_that_leave_the_tensor_are_refused():
    before = StoredTensor.from_array(np.zeros(64, np.float32))
    steps = pack(np.full(3, 2, np.uint32))
    for gaps in ([62, 0, 0], [0, 2**32 - 1, 2**32 - 1], [64, 0, 0], [0, 0, 62]):
        update = SparsePacked(pack(np.array(gaps, np.uint32)), steps)
        with pytest.raises(DeltaError, match="leave a tensor"):
            update.apply(before)
    assert SparsePacked(pack(np.array([61, 0, 0], np.uint32)), steps).apply(before) != before


def test_steps_to_nan_are_refused():
    before = StoredTensor.from_array(np.array([1.0, 2.0], np.float32))
    bits = before.bits() + np.array([0, 0x7FC00000 - 0x40000000], np.uint32)
    nan = StoredTensor("F32", (2,), bits.view(np.uint8))
    for kind in (Packed, SparsePacked):
        with pytest.raises(NonFiniteUpdateError):
            kind.between(before, nan, before.bits() != bits).apply(before)


def merged(dtype: torch.dtype, rank: int, share: float) -> tuple[StoredTensor, StoredTensor]:
    """A weight before and after an adapter was merged as PEFT merges: in the weight's dtype."""
    torch.manual_seed(rank)
    weight = (torch.randn(96, 160) * 0.05).to(dtype)
    change = torch.randn(96, rank) @ torch.randn(rank, 160)
    change *= share * 0.05 / change.std()
    after = weight + change.to(dtype)
    return StoredTensor.from_array(weight), StoredTensor.from_array(after)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_merged_adapter_is_stored_as_factors_again(dtype, share):
    before, after = merged(dtype, 3, share)
    update, _, reason = choose(after, before)
    assert isinstance(update, LowRankPacked | LowRank)
    assert update.rank == 3
    assert update.apply(before) == after
    packed = Packed.between(before, after, before.bits() != after.bits())
    assert update.nbytes(0) < packed.nbytes(0) / 1.5
    assert "low_rank_packed" in reason or "low_rank " in reason


def test_a_product_that_was_added_exactly_needs_no_correction():
    before, _ = merged(torch.float32, 2, 0.1)
    rng = np.random.default_rng(0)
    left, right = rng.integers(-8, 8, (96, 1)) / 64, rng.integers(-8, 8, (1, 160)) / 64
    after = apply(LowRank(left, right).rounded()[0], before)
    update, _, _ = choose(after, before)
    assert isinstance(update, LowRank | LowRankPacked)
    assert update.apply(before) == after
    assert update.nbytes(0) < 4 * (96 + 160) + 2000


def test_a_change_without_structure_is_not_taken_for_a_product():
    torch.manual_seed(0)
    weight = torch.randn(96, 160)
    before = StoredTensor.from_array(weight)
    update, _, _ = choose(StoredTensor.from_array(weight + 1e-3 * torch.randn(96, 160)), before)
    assert isinstance(update, Packed)
