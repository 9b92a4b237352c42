"""Every change since the start is known, and can be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from hubedit import models
from hubedit.errors import (
    DeltaError,
    MethodError,
    NonFiniteUpdateError,
    UnmappedTensorError,
    UnsupportedModelError,
)
from hubedit.mapping import from_torch, same_bits, to_torch
from hubedit.updates import Columns, LowRank, Replace, Rows, Sparse

MLP = "transformer.h.1.mlp.c_proj.weight"
EMBEDDINGS = "transformer.wte.weight"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def model(gpt2: Path) -> models.LoadedModel:
    return models.load(gpt2)


def test_an_update_changes_the_live_parameter_and_is_recorded(model):
    before = model.weight(MLP).clone()
    update = tiny.factors(*before.shape, rank=2)
    model.update(MLP, update)
    expected = before + torch.from_numpy(update.left) @ torch.from_numpy(update.right)
    assert torch.equal(model.weight(MLP), expected)
    assert model.recorded == {MLP: [update]}
    assert model.changes() == {MLP: [update]}


def test_updates_of_one_parameter_add_up(model):
    before = model.weight(MLP).clone()
    first, second = tiny.factors(*before.shape, seed=1), tiny.factors(*before.shape, seed=2)
    model.update(MLP, first)
    model.update(MLP, second)
    total = sum(torch.from_numpy(one.left @ one.right) for one in (first, second))
    assert torch.allclose(model.weight(MLP), before + total, atol=1e-5)
    assert model.changes() == {MLP: [first, second]}


def test_an_update_of_an_alias_is_recorded_for_its_tensor(tmp_path):
    model = models.load(tiny.make(tmp_path, tied=True, rename=tiny.without_prefix))
    update = tiny.factors(*model.weight(EMBEDDINGS).shape)
    model.update("lm_head.weight", update)
    assert model.changes() == {"wte.weight": [update]}
    assert model.weight("lm_head.weight") is model.weight(EMBEDDINGS)


def test_an_update_that_does_not_fit_is_refused(model):
    before = model.weight(MLP).clone()
    with pytest.raises(DeltaError):
        model.update(MLP, tiny.factors(tiny.WIDTH, tiny.INNER))
    with pytest.raises(UnsupportedModelError, match=r"did you mean.*h\.1\.mlp\.c_proj\.weight"):
        model.update("transformer.h.1.mlp.c_prog.weight", tiny.factors(1, 1))
    assert torch.equal(model.weight(MLP), before)
    assert model.changes() == {}


def test_an_update_that_would_write_infinity_changes_nothing(model):
    rows, columns = model.weight(MLP).shape
    left = torch.full((rows, 1), 3e38).numpy()
    right = torch.full((1, columns), 10.0).numpy()
    with pytest.raises(NonFiniteUpdateError):
        model.update(MLP, LowRank(left, right))
    assert model.changes() == {}


def test_a_tensor_trained_in_place_is_found_and_rounded_to_its_dtype(tmp_path):
    model = models.load(tiny.make(tmp_path, "qwen3", dtype=torch.bfloat16))
    name = "model.layers.1.mlp.up_proj.weight"
    with torch.no_grad():
        model.weight(name).add_(0.01)
    changes = model.changes()
    assert list(changes) == [name]
    assert changes[name].dtype == "BF16"
    assert torch.equal(to_torch(changes[name]), model.weight(name).bfloat16())


def test_training_is_found_whatever_way_it_writes(model):
    model.weight(MLP).requires_grad_(True)
    optimizer = torch.optim.SGD([model.weight(MLP)], lr=0.1)
    model.model(**model.batch(tiny.TEXTS[:2])).logits.square().mean().backward()
    optimizer.step()
    model.weight(EMBEDDINGS).data[5] += 1
    assert set(model.changes()) == {MLP, EMBEDDINGS}


def test_a_change_too_small_for_the_stored_dtype_is_none(tmp_path):
    model = models.load(tiny.make(tmp_path, dtype=torch.bfloat16))
    with torch.no_grad():
        model.weight(MLP).mul_(1 + 2**-12)
    assert model.changes() == {}


@pytest.mark.parametrize("order", ["update first", "training first"])
def test_a_parameter_changed_both_ways_is_refused(model, order):
    def train() -> None:
        model.weight(MLP).data[0, 0] += 1

    update = tiny.factors(*model.weight(MLP).shape)
    if order == "update first":
        model.update(MLP, update)
        train()
        with pytest.raises(MethodError, match="both in place and by"):
            model.changes()
    else:
        train()
        with pytest.raises(MethodError, match="both in place and by"):
            model.update(MLP, update)


def test_infinity_left_by_training_is_refused(model):
    model.weight(MLP).data[2, 2] = float("inf")
    with pytest.raises(NonFiniteUpdateError, match=r"h\.1\.mlp\.c_proj"):
        model.changes()


def test_a_model_rebuilt_by_the_method_is_refused(tmp_path):
    model = models.load(tiny.make(tmp_path, tied=True))
    model.model.lm_head.weight = torch.nn.Parameter(model.weight(EMBEDDINGS).clone())
    with pytest.raises(MethodError, match="keep tied weights tied"):
        model.changes()


def test_restore_gives_the_same_bits(gpt2, model):
    start = {name: value.clone() for name, value in model.model.named_parameters()}
    hashes = model.tensor_hashes()
    model.update(MLP, tiny.factors(*model.weight(MLP).shape))
    model.update(
        "transformer.h.0.mlp.c_fc.weight",
        Sparse(torch.tensor([3, 99]).numpy(), torch.tensor([1.5, -2.0]).numpy()),
    )
    model.weight(EMBEDDINGS).requires_grad_(True).data.mul_(2)
    model.model.train()
    assert len(model.changes()) == 3
    assert model.tensor_hashes() != hashes
    model.restore()
    for name, value in model.model.named_parameters():
        assert same_bits(value.detach(), start[name].detach())
        assert not value.requires_grad
    assert not model.model.training
    assert model.recorded == {}
    assert model.changes() == {}
    assert model.tensor_hashes() == hashes


def test_a_sparse_update_writes_the_elements_it_names(model):
    before = model.weight(MLP).clone()
    model.update(MLP, Sparse(torch.tensor([0, 33]).numpy(), torch.tensor([7.0, 8.0]).numpy()))
    after = model.weight(MLP)
    assert (after[0, 0], after[1, 1]) == (7.0, 8.0)
    assert int((after != before).sum()) == 2


def test_rows_and_columns_replace_the_lines_they_name(model):
    before = model.weight(MLP).clone()
    rows, columns = torch.ones(2, before.shape[1]), torch.full((before.shape[0], 1), 2.0)
    model.update(MLP, Rows([5, 2], rows))
    model.update(MLP, Columns([7], columns))
    expected = before.clone()
    expected[[2, 5]], expected[:, [7]] = rows, columns
    assert torch.equal(model.weight(MLP), expected)
    wrong_lines = (
        Rows([before.shape[0]], rows[:1]),
        Rows([0], rows[:1, 1:]),
        Columns([0], columns[1:]),
        Columns([before.shape[1]], columns),
    )
    for wrong in wrong_lines:
        with pytest.raises(DeltaError):
            model.update(MLP, wrong)
    assert torch.equal(model.weight(MLP), expected)


def test_a_replacement_is_the_new_value(model):
    new = torch.randn(model.weight(MLP).shape)
    model.update(MLP, Replace(new.numpy()))
    assert torch.equal(model.weight(MLP), new)


def test_set_tensor_writes_stored_bits_into_every_name(tmp_path):
    model = models.load(
        tiny.make(tmp_path, tied=True, rename=tiny.without_prefix, dtype=torch.bfloat16)
    )
    new = torch.randn(model.weight(EMBEDDINGS).shape).bfloat16()
    model.set_tensor("wte.weight", from_torch(new, "BF16"))
    assert torch.equal(model.weight("lm_head.weight"), new.float())
    assert model.tensor_hashes()["wte.weight"] == from_torch(new, "BF16").sha256()
    with pytest.raises(DeltaError, match="stored as BF16"):
        model.set_tensor("wte.weight", from_torch(new, "F32"))
    with pytest.raises(UnmappedTensorError, match="'nowhere'"):
        model.set_tensor("nowhere", from_torch(new, "BF16"))


def test_the_start_state_is_the_base_with_earlier_edits_on_it(gpt2):
    earlier = from_torch(torch.randn(tiny.INNER, tiny.WIDTH), "F32")
    model = models.load(gpt2, overlay={MLP: earlier})
    assert torch.equal(model.weight(MLP), to_torch(earlier))
    assert model.changes() == {}
    update = tiny.factors(tiny.INNER, tiny.WIDTH)
    model.update(MLP, update)
    model.restore()
    assert torch.equal(model.weight(MLP), to_torch(earlier))


def test_tensor_hashes_are_those_of_the_files(tmp_path):
    model = models.load(tiny.make(tmp_path, "gpt_neox", dtype=torch.float16, sharded=True))
    hashes = model.tensor_hashes()
    assert hashes == {name: model.checkpoint.read(name).sha256() for name in hashes}
    assert set(hashes) == set(model.checkpoint.tensors)


def test_the_digest_names_the_start_state(gpt2, tmp_path):
    earlier = {MLP: from_torch(torch.randn(tiny.INNER, tiny.WIDTH), "F32")}
    plain, edited = models.load(gpt2), models.load(gpt2, overlay=earlier)
    assert plain.digest() == models.load(gpt2).digest()
    assert plain.digest() != edited.digest()
    assert plain.digest([MLP]) == edited.digest([MLP])
    assert plain.digest([EMBEDDINGS]) != edited.digest([EMBEDDINGS])
    other = models.load(tiny.make(tmp_path, seed=1))
    assert plain.digest() != other.digest()
    assert models.load(gpt2, identity="0" * 64).digest() != plain.digest()
    before = plain.digest()
    plain.update(MLP, tiny.factors(tiny.INNER, tiny.WIDTH))
    assert plain.digest() == before
