"""Every kind, dtype and odd shape: the same bits through the library, the file and the page."""

import numpy as np
import pytest
import torch
from numpy_decoder import decode

from hubedit.choosing import choose
from hubedit.delta import Delta, Target
from hubedit.stored import DTYPE_BITS, byte_count
from hubedit.updates import (
    KINDS,
    Add,
    Columns,
    Drop,
    LowRank,
    LowRankPacked,
    Packed,
    Replace,
    Rows,
    Sparse,
    SparsePacked,
    StoredTensor,
    Update,
    apply,
)

SHAPES = [(), (1,), (7,), (16,), (13, 17), (1, 31), (31, 1), (2, 3, 5), (8, 3, 2, 5)]
BETWEEN = [Sparse, Rows, Columns, Replace, SparsePacked, Packed]
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def random(dtype: str, shape: tuple[int, ...], seed: int = 0) -> StoredTensor:
    """Any bits that are finite, and the edges: zero of both signs, subnormals, the largest."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, byte_count(dtype, shape), dtype=np.uint8)
    edges = {
        "F64": [0, 1 << 63, 1, (1 << 52) - 1, (0x7FF << 52) - 1],
        "F32": [0, 1 << 31, 1, 0x7FFFFF, 0x7F7FFFFF],
        "BF16": [0, 1 << 15, 1, 0x7F, 0x7F7F],
        "F16": [0, 1 << 15, 1, 0x3FF, 0x7BFF],
    }.get(dtype)
    if edges is None:
        return StoredTensor(dtype, shape, data)
    bits = data.view(f"<u{DTYPE_BITS[dtype] // 8}").copy()
    finite = {"F64": 0xBFEF << 48, "F32": 0xBF7FFFFF, "BF16": 0xBF7F, "F16": 0xBBFF}[dtype]
    bits &= bits.dtype.type(finite | (1 << DTYPE_BITS[dtype] - 1))
    some = rng.random(bits.size) < 0.3
    bits[some] = rng.choice(np.array(edges, bits.dtype), int(some.sum()))
    return StoredTensor(dtype, shape, bits.view(np.uint8))


def through(updates: dict[str, Update], base: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """What updates make of a base, once the file and the page agree on it."""
    after = {n: apply(u, base[n]) for n, u in updates.items() if not isinstance(u, Add | Drop)}
    targets = {}
    for name, update in updates.items():
        old = None if isinstance(update, Add) else base[name]
        new = update.values if isinstance(update, Add) else after.get(name)
        like = old or new
        targets[name] = Target(
            like.dtype, like.shape, old and old.sha256(), None if new is None else new.sha256()
        )
    aliases = {name: [f"{name}.tied", "head"] for name in after}
    content = Delta(updates, targets, aliases).to_bytes()
    delta = Delta.read(content)
    assert delta.to_bytes() == content
    assert {name: tuple(sorted(others)) for name, others in aliases.items()} == delta.aliases
    page = decode(content, {name: tensor.data.tobytes() for name, tensor in base.items()})
    for name, tensor in after.items():
        assert delta.apply(name, base[name]) == tensor
        assert page[name] == tensor.data.tobytes()
    return after


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_kind_that_holds_bits_makes_exactly_those_bits(dtype):
    updates, base, wanted = {}, {}, {}
    for shape in SHAPES:
        if byte_count(dtype, shape) is None:
            continue
        before, other = random(dtype, shape), random(dtype, shape, 1)
        for share in (0.05, 0.5, 1.0):
            moved = np.random.default_rng(2).random(before.units().size) < share
            moved[-1] = True
            units = np.where(moved, other.units(), before.units())
            after = StoredTensor(dtype, shape, units.view(np.uint8))
            changed = before.units() != after.units()
            if not changed.any():
                continue
            for kind in BETWEEN:
                plain = kind in (SparsePacked, Packed, Replace)
                if not plain and kind.cost(before, changed) is None:
                    continue
                name = f"{kind.kind}/{shape}/{share}"
                base[name], wanted[name] = before, after
                updates[name] = kind.between(before, after, changed)
            chosen, made, _ = choose(after, before)
            assert made == after
            assert chosen.apply(before) == after
    assert through(updates, base) == wanted


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (dtype, shape)
        for shape in [(), (0,), (0, 5), (3, 0, 2), (8, 3)]
        for dtype in sorted(DTYPE_BITS)
        if byte_count(dtype, shape) is not None  # a file holds whole bytes
    ],
)
def test_tensors_of_any_dtype_and_shape_come_and_go(dtype, shape):
    tensor = random(dtype, shape)
    if dtype == "C64":
        tensor = StoredTensor(dtype, shape, np.zeros(tensor.nbytes, np.uint8))
    assert through({"new": Add(tensor), "old": Drop()}, {"old": tensor}) == {}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("rank", "shape", "scale"),
    [
        (1, (1, 1), 1.0),
        (1, (37, 1), 1e-3),
        (1, (101, 103), 1e-30),
        (2, (97, 89), 1e-7),
        (5, (7, 5), 1.0),
        (31, (127, 131), 1e-2),
        (100, (211, 223), 1e-4),
        (1000, (1009, 1013), 1e-3),
    ],
)
def test_products_of_any_rank_and_scale_have_one_result(dtype, rank, shape, scale):
    rng = np.random.default_rng(rank)
    plain = torch.from_numpy(rng.normal(size=shape) * 0.05).to(FLOATS[dtype])
    plain.view(-1)[:1] = -0.0
    before = StoredTensor.from_array(plain)
    left, right = rng.normal(size=(shape[0], rank)) * scale, rng.normal(size=(rank, shape[1]))
    left[rng.random(shape[0]) < 0.1] = 0
    update = LowRank(left, right).rounded()[0]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(through({"w": update}, {"w": before})["w"])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]
    wide = torch.from_numpy(before.to_float32().astype(np.float64).copy())
    product = (
        torch.from_numpy(update.left.copy()).double()
        @ torch.from_numpy(update.right.copy()).double()
    )
    by_torch = StoredTensor.from_array((wide + product).float().to(FLOATS[dtype]))
    moved = (product != 0).numpy().reshape(-1)
    assert (by_torch.bits()[moved] == found[0].bits()[moved]).all()
    assert (before.bits()[~moved] == found[0].bits()[~moved]).all()
    noisy = StoredTensor(
        dtype,
        shape,
        (found[0].bits() ^ (rng.random(before.size) < 0.1))
        .astype(before.bits().dtype)
        .view(np.uint8),
    )
    missed = noisy.bits() != found[0].bits()
    if missed.any() and rank <= 100:
        corrected = LowRankPacked(update, SparsePacked.between(found[0], noisy, missed))
        assert through({"w": corrected}, {"w": before}) == {"w": noisy}


def test_sources_that_are_not_contiguous_are_stored_as_they_read():
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (whole.T, whole[::2], whole[:, ::-1], whole[1:3, 1:5]):
        assert StoredTensor.from_array(view).data.tobytes() == view.tobytes()
        assert (
            StoredTensor.from_array(torch.from_numpy(view.copy())).data.tobytes() == view.tobytes()
        )
    turned = torch.arange(24.0).reshape(4, 6).t()
    assert StoredTensor.from_array(turned).data.tobytes() == turned.contiguous().numpy().tobytes()
    values = Rows([0, 2], whole.T[:2]).values
    assert values.data.tobytes() == whole.T[:2].tobytes()


def test_every_kind_is_tried_here():
    assert {*KINDS} == {kind.kind for kind in (*BETWEEN, Add, Drop, LowRank, LowRankPacked)}
