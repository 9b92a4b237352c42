"""Updates that hold values: elements, rows, columns, whole tensors."""

import numpy as np
import pytest
import torch
from exact import stored, weights

from hubedit.errors import DeltaError, NonFiniteUpdateError
from hubedit.updates import Columns, LowRank, Replace, Rows, Sparse, StoredTensor, apply


def test_sparse_writes_its_elements_in_any_order_given():
    before = StoredTensor.from_array(np.zeros((2, 3), np.float32))
    after = apply(Sparse([5, 1], np.array([2, 7], np.float32)), before)
    assert after.to_float32().tolist() == [[0, 7, 0], [0, 0, 2]]


def test_rows_and_columns_are_written_in_any_order_given():
    before = StoredTensor.from_array(np.zeros((3, 3), np.float32))
    new = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert apply(Rows([2, 0], new), before).to_float32().tolist() == [[4, 5, 6], [0] * 3, [1, 2, 3]]
    after = apply(Columns(torch.tensor([2, 0]), new.T), before).to_float32()
    assert after.T.tolist() == [[4, 5, 6], [0] * 3, [1, 2, 3]]


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_rows_and_columns_keep_every_other_bit(dtype):
    rng = np.random.default_rng(2)
    before, other = weights(rng, dtype, (9, 7)), weights(rng, dtype, (9, 7))
    old, new = (tensor.bits().reshape(9, 7) for tensor in (before, other))
    found = apply(Rows([1, 8], stored(new[[1, 8]], dtype)), before).bits().reshape(9, 7)
    assert np.array_equal(found[[1, 8]], new[[1, 8]])
    assert np.array_equal(found[[0, *range(2, 8)]], old[[0, *range(2, 8)]])
    found = apply(Columns([6, 2], stored(new[:, [6, 2]], dtype)), before).bits().reshape(9, 7)
    assert np.array_equal(found[:, [2, 6]], new[:, [2, 6]])
    assert np.array_equal(found[:, [0, 1, 3, 4, 5]], old[:, [0, 1, 3, 4, 5]])


def test_rows_are_counted_on_the_first_axis_and_columns_on_the_last():
    before = StoredTensor.from_array(np.zeros((4, 2, 3), np.int16))
    rows = apply(Rows([3], np.ones((1, 2, 3), np.int16)), before).bits().reshape(4, 2, 3)
    columns = apply(Columns([1], np.ones((4, 2, 1), np.int16)), before).bits().reshape(4, 2, 3)
    assert rows[3].all()
    assert columns[..., 1].all()
    assert (rows.sum(), columns.sum()) == (6, 8)


@pytest.mark.parametrize("kind", [Rows, Columns])
@pytest.mark.parametrize("indices", [[1, 1], [-1, 0], [0.5, 1.5], [[0, 1]], [0], [0, 1, 2]])
def test_lines_need_indices_that_come_once_each(kind, indices):
    with pytest.raises(DeltaError):
        kind(indices, np.zeros((2, 2), np.float32))


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
        Rows([2], np.ones((1, 3), np.float32)),
        Rows([0], np.ones((1, 2), np.float32)),
        Rows([0], np.ones((1, 3), np.float16)),
        Rows([0], np.ones((1, 3, 1), np.float32)),
        Columns([3], np.ones((2, 1), np.float32)),
        Columns([0], np.ones((3, 1), np.float32)),
    ],
)
def test_an_update_of_another_shape_or_dtype_is_refused(update):
    with pytest.raises(DeltaError):
        apply(update, StoredTensor.from_array(np.zeros((2, 3), np.float32)))


def test_nan_in_lines_is_refused_unless_it_was_there():
    infinite = StoredTensor.from_array(np.array([[np.inf, 1], [1, 1]], np.float32))
    for kind in (Rows, Columns):
        with pytest.raises(NonFiniteUpdateError):
            apply(kind([1], np.full((1, 2) if kind is Rows else (2, 1), np.nan, "f4")), infinite)
    after = apply(Rows([0], np.array([[np.inf, 2]], np.float32)), infinite)
    assert after.to_float32().tolist() == [[np.inf, 2], [1, 1]]


def test_a_vector_has_no_rows():
    with pytest.raises(DeltaError, match="needs one row"):
        Rows([0], np.ones(1, np.float32))
    with pytest.raises(DeltaError, match="do not fit"):
        apply(Rows([0], np.ones((1, 1), np.float32)), StoredTensor.from_array(np.ones(4, "f4")))


@pytest.mark.parametrize("update", [Sparse, lambda indices, values: Replace(values)])
def test_nan_is_refused_unless_it_was_there(update):
    infinite = StoredTensor.from_array(np.array([np.inf, 1], np.float32))
    with pytest.raises(NonFiniteUpdateError):
        apply(update([0, 1], np.array([np.inf, np.nan], np.float32)), infinite)
    after = apply(update([0, 1], np.array([np.inf, 2], np.float32)), infinite)
    assert after.to_float32().tolist() == [np.inf, 2]
