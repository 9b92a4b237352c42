"""The kind of update that a change is stored as, and what is said of it."""

import re

import numpy as np
import pytest
import torch
from delta_sample import BASE, CHANGES, ENCODED, RNG, low_rank

from hubedit.delta import Delta, encode
from hubedit.errors import DeltaError, EmptyDeltaError, NonFiniteUpdateError
from hubedit.updates import LowRank, Replace, Sparse, StoredTensor


def test_changes_describe_what_they_change():
    by_name = {change.name: change for change in ENCODED.changes}
    low = by_name["low.weight"]
    before, after = BASE["low.weight"], ENCODED.after["low.weight"]
    assert (low.kind, low.rank, low.dtype, low.shape) == ("low_rank", 1, "BF16", (12, 10))
    assert (low.sha256_before, low.sha256_after) == (before.sha256(), after.sha256())
    assert low.elements_total == 120
    assert low.elements_changed == int((before.bits() != after.bits()).sum())
    old, new = before.to_float32().astype(float), after.to_float32().astype(float)
    ratio = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert low.relative_norm == pytest.approx(ratio, rel=1e-5)
    assert low.nbytes == 4 * 22
    some = by_name["some.weight"]
    assert (some.kind, some.rank, some.elements_changed, some.nbytes) == ("sparse", None, 2, 6)
    assert [choice.kind for choice in ENCODED.choices] == [
        "columns", "low_rank", "low_rank_packed", "packed", "sparse_packed", "sparse", "rows",
        "replace", "add", "drop",
    ]  # fmt: skip
    assert all(choice.reason for choice in ENCODED.choices)


def test_recorded_updates_of_one_tensor_are_stored_as_one():
    base = StoredTensor.from_array(RNG.normal(size=(60, 50)).astype(np.float32))
    one, two = low_rank(2, (60, 50)), low_rank(3, (60, 50))
    encoded = encode({"w": [one, two]}, lambda _: base)
    assert encoded.changes[0].rank == 5
    exact = base.to_float32() + one.left @ one.right + two.left @ two.right
    assert np.allclose(encoded.after["w"].to_float32(), exact, rtol=1e-5, atol=1e-5)


def test_factors_as_large_as_the_tensor_are_not_stored():
    encoded = encode({"low.weight": [low_rank(6)]}, BASE.__getitem__)
    (choice,) = encoded.choices
    assert choice.kind in {"sparse", "replace"}
    assert "rank 6" in choice.reason


def test_ranks_that_add_up_above_the_smaller_side_are_not_stored():
    updates = [low_rank(5), low_rank(5), low_rank(5)]
    encoded = encode({"low.weight": updates}, BASE.__getitem__)
    assert encoded.choices[0].kind == "replace"
    total = BASE["low.weight"].to_float32() + sum(u.left @ u.right for u in updates)
    expected = torch.from_numpy(total).bfloat16().float().numpy()
    assert np.allclose(encoded.after["low.weight"].to_float32(), expected, rtol=2**-7)


def test_factors_that_the_grid_would_move_are_not_stored():
    base = StoredTensor.from_array(RNG.normal(size=(80, 80)).astype(np.float32))
    left, right = np.zeros((80, 2)), np.zeros((2, 80))
    left[:, 0], left[:, 1] = 1, RNG.normal(size=80) * 2.0**-12
    right[0, :], right[1, :] = 2.0**8, RNG.normal(size=80) * 2.0**-12
    left[:, 1] *= 2.0**-12
    encoded = encode({"w": [LowRank(left, right)]}, lambda _: base)
    assert encoded.choices[0].kind != "low_rank"
    assert "grid" in encoded.choices[0].reason


def test_a_black_box_change_takes_the_smallest_exact_kind():
    base = StoredTensor.from_array(torch.randn(50, 40).bfloat16())
    everywhere = np.random.default_rng(0).permutation(base.size)
    rows, columns = np.arange(base.size) // 40, np.arange(base.size) % 40
    fresh = np.random.default_rng(1).integers(0, 0x7F80, base.size).astype(np.uint16)
    for changed, kind in (
        (everywhere[:1], "sparse"),
        (everywhere[:500], "sparse_packed"),
        (everywhere, "replace"),
        (np.flatnonzero(rows == 7), "rows"),
        (np.flatnonzero(np.isin(rows, (7, 49)) & (columns > 15)), "rows"),
        (np.flatnonzero(np.isin(rows, (7, 49)) & (columns > 30)), "sparse"),
        (np.flatnonzero(np.isin(columns, (0, 39))), "columns"),
    ):
        values = base.bits().copy()
        values[changed] = fresh[changed]
        after = StoredTensor("BF16", base.shape, values.view(np.uint8))
        encoded = encode({"w": after}, lambda _: base)
        assert encoded.choices[0].kind == kind
        assert encoded.delta.apply("w", base) == after
        told = encoded.choices[0].reason.split("bytes as ")[1]
        tried = re.findall(r"(\w+) (?:about )?([\d,]+)", told)
        sizes = {name: int(nbytes.replace(",", "")) for name, nbytes in tried}
        assert {"sparse", "rows", "columns", "replace"} <= set(sizes)
        assert sizes[kind] == min(sizes.values()) == encoded.choices[0].nbytes


def test_a_light_change_everywhere_is_stored_as_steps():
    base = StoredTensor.from_array(torch.randn(50, 40))
    after = StoredTensor("F32", base.shape, (base.bits() + 1).view(np.uint8))
    encoded = encode({"w": after}, lambda _: base)
    assert encoded.choices[0].kind == "packed"
    assert encoded.choices[0].nbytes < base.nbytes / 50
    assert Delta.read(encoded.delta.to_bytes()).apply("w", base) == after


def test_elements_smaller_than_a_byte_are_replaced():
    base = StoredTensor("F4", (4, 4), np.zeros(8, np.uint8))
    after = StoredTensor("F4", (4, 4), np.array([0, 0, 1, 0, 0, 0, 0, 0], np.uint8))
    encoded = encode({"w": after}, lambda _: base)
    assert encoded.choices[0].kind == "replace"
    assert encoded.changes[0].relative_norm is None
    assert Delta.read(encoded.delta.to_bytes()).apply("w", base) == after


def test_values_are_rounded_to_the_dtype_of_the_tensor():
    values = np.array([1 + 2**-9, 3.0])
    encoded = encode({"low.weight": [Sparse([7, 2], values)]}, BASE.__getitem__)
    assert encoded.after["low.weight"].to_float32().reshape(-1)[[7, 2]].tolist() == [1.0, 3.0]
    whole = encode({"low.weight": [Replace(np.ones((12, 10)))]}, BASE.__getitem__)
    assert (whole.after["low.weight"].to_float32() == 1).all()
    assert whole.after["low.weight"].dtype == "BF16"


def test_updates_of_several_kinds_are_carried_out_in_their_order():
    updates = [low_rank(), Sparse([0], np.array([5.0])), LowRank(np.eye(12)[:, :1], np.eye(10)[:1])]
    encoded = encode({"low.weight": updates}, BASE.__getitem__)
    assert encoded.after["low.weight"].to_float32()[0, 0] == 6
    assert encoded.choices[0].kind in {"sparse", "replace"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"low.weight": BASE["low.weight"]},
        {"low.weight": []},
        {"low.weight": [LowRank(np.zeros((12, 1)), np.ones((1, 10)))]},
        {"low.weight": [LowRank(np.full((12, 1), 1e-9), np.full((1, 10), 1e-9))]},
        {"whole.bias": [Sparse([2], np.array([2]))]},
    ],
)
def test_a_change_of_nothing_is_an_error(changes):
    with pytest.raises(EmptyDeltaError):
        encode(changes, BASE.__getitem__)


def test_tensors_without_change_are_left_out_and_named():
    encoded = encode(
        {"low.weight": [low_rank()], "some.weight": BASE["some.weight"]},
        BASE.__getitem__,
        aliases={"some.weight": ["tied"]},
    )
    assert list(encoded.delta) == ["low.weight"]
    assert [(choice.name, choice.kind) for choice in encoded.choices] == [
        ("low.weight", "low_rank"),
        ("some.weight", "none"),
    ]
    assert encoded.delta.aliases == {}


@pytest.mark.parametrize(
    "change",
    [
        [LowRank(np.ones((3, 1)), np.ones((1, 3)))],
        [Sparse([120], np.ones(1))],
        [Sparse([0], np.ones(1, np.int64))],
        StoredTensor.from_array(np.ones((12, 10), np.float32)),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_the_tensor_named(change):
    with pytest.raises(DeltaError, match=r"^low\.weight: "):
        encode({"low.weight": change}, BASE.__getitem__)


def test_nan_is_not_encoded():
    for change in (
        [LowRank(np.full((12, 1), np.inf), np.ones((1, 10)))],
        [Sparse([0], np.array([np.nan]))],
        [LowRank(np.full((12, 1), 3e38), np.full((1, 10), 3e38))],
    ):
        with pytest.raises(NonFiniteUpdateError, match=r"^low\.weight: "):
            encode({"low.weight": change}, BASE.__getitem__)


def test_meta_with_fractions_is_refused():
    with pytest.raises(DeltaError, match="meta"):
        encode(CHANGES, BASE.__getitem__, meta={"x": 0.1})
