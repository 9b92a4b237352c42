"""The difference of two checkpoints as an edit: exact, and refused where it cannot be."""

import json
import shutil

import numpy as np
import pytest
import torch

from hubedit.shards import Checkpoint, materialize
from hubedit.updates import StoredTensor

MATRIX = "transformer.h.{}.mlp.c_proj.weight"


@pytest.fixture
def trained(tiny, tmp_path):
    """A copy of the tiny model, and the model with a merged adapter, a row and noise in it."""
    base = shutil.copytree(tiny, tmp_path / "base")
    stored = Checkpoint.open(base)
    torch.manual_seed(0)

    def moved(name: str, change: torch.Tensor) -> StoredTensor:
        before = torch.from_numpy(stored.read(name).to_float32().copy())
        return StoredTensor.from_array(before + change).rounded_to(stored.tensors[name].dtype)

    shapes = {number: stored.tensors[MATRIX.format(number)].shape for number in range(3)}
    rows, columns = shapes[0]
    some = torch.zeros(shapes[1])
    some[3] = 0.5
    changes = {
        MATRIX.format(0): moved(
            MATRIX.format(0), torch.randn(rows, 1) @ torch.randn(1, columns) * 0.1
        ),
        MATRIX.format(1): moved(MATRIX.format(1), some),
        MATRIX.format(2): moved(MATRIX.format(2), torch.randn(shapes[2]) * 1e-4),
    }
    materialize(base, tmp_path / "trained", changes)
    return tmp_path


def weights(directory) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def test_a_checkpoint_becomes_an_edit_that_verifies_and_materializes_to_its_bytes(hubedit, trained):
    status, out, err = hubedit("delta", "base", "trained", "-o", "edit", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert {choice["name"] for choice in said["tensors"]} == {MATRIX.format(n) for n in range(3)}
    assert all(choice["reason"] for choice in said["tensors"])
    assert (
        said["delta_bytes"] == next(trained.glob("edit/edits/*/delta.safetensors")).stat().st_size
    )
    assert said["delta_bytes"] < said["checkpoint_bytes"]
    assert hubedit("verify", "edit", "--deep")[0] == 0
    status, _, err = hubedit("materialize", "edit", "-o", "whole")
    assert status == 0, err
    assert weights(trained / "whole") == weights(trained / "trained")
    status, out, _ = hubedit("show", "edit")
    assert status == 0
    assert "the weights of trained" in out


def test_the_same_two_checkpoints_make_the_same_edit(hubedit, trained):
    for name in ("one", "two"):
        assert hubedit("delta", "base", "trained", "-o", name)[0] == 0
    one = trained / "one"
    paths = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(paths) > 5
    for path in paths:
        assert (one / path).read_bytes() == (trained / "two" / path).read_bytes()


def test_a_dry_run_says_the_bytes_and_writes_nothing(hubedit, trained):
    before = sorted(trained.iterdir())
    status, out, err = hubedit("delta", "base", "trained", "--dry-run")
    assert status == 0, err
    assert out.startswith("would write 3 tensors")
    assert sorted(trained.iterdir()) == before
    assert hubedit("delta", "base", "trained")[0] == 2


def test_a_checkpoint_goes_to_the_hub_as_an_edit_and_a_second_one_on_top(
    hubedit, trained, localhub
):
    assert hubedit("delta", "base", "trained", "-o", "edit")[0] == 0
    status, _, err = hubedit("push", "edit", "--to", "me/merged", "--direct")
    assert status == 0, err
    assert hubedit("verify", "me/merged")[0] == 0
    name = "transformer.ln_f.bias"
    last = Checkpoint.open(trained / "trained").read(name)
    new = StoredTensor(last.dtype, last.shape, (last.bits() ^ 1).view(np.uint8))
    materialize(trained / "trained", trained / "further", {name: new})
    status, _, err = hubedit("delta", "me/merged", "further", "-o", "second")
    assert status == 0, err
    manifests = sorted((trained / "second").rglob("manifest.json"))
    assert len(manifests) == 2
    recorded = json.loads(manifests[1].read_text())
    assert [tensor["name"] for tensor in recorded["tensors"]] == [name]
    assert hubedit("verify", "second")[0] == 0
    assert hubedit("push", "second", "--to", "me/merged", "--direct")[0] == 0
    assert hubedit("materialize", "me/merged", "-o", "whole")[0] == 0
    assert weights(trained / "whole") == weights(trained / "further")


def test_tensors_that_come_and_go_are_part_of_the_edit(hubedit, trained):
    new = StoredTensor.from_array(np.arange(4, dtype=np.float32))
    materialize(
        trained / "base", trained / "other", {}, added={"extra": new}, dropped=[MATRIX.format(1)]
    )
    assert hubedit("delta", "base", "other", "-o", "edit")[0] == 0
    recorded = json.loads(next((trained / "edit").rglob("manifest.json")).read_text())
    kinds = {tensor["name"]: tensor["kind"] for tensor in recorded["tensors"]}
    assert kinds == {"extra": "add", MATRIX.format(1): "drop"}
    assert hubedit("verify", "edit")[0] == 0


def test_files_that_an_edit_may_write_are_taken_and_the_others_named(hubedit, trained):
    other = trained / "trained"
    (other / "generation_config.json").write_text('{"do_sample": false, "top_k": 7}\n')
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"use_cache": False}))
    status, out, err = hubedit("delta", "base", "trained", "-o", "edit", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert (said["files"], said["files_as_in_base"]) == (
        ["generation_config.json"],
        ["config.json"],
    )
    assert hubedit("verify", "edit")[0] == 0
    assert hubedit("materialize", "edit", "-o", "whole")[0] == 0
    for name in ("generation_config.json", "model.safetensors"):
        assert (trained / "whole" / name).read_bytes() == (other / name).read_bytes()


def test_another_shape_or_dtype_is_refused_with_both_named(hubedit, trained):
    stored = Checkpoint.open(trained / "base")
    name = MATRIX.format(0)
    turned = StoredTensor.from_array(stored.read(name).to_float32().T.copy())
    materialize(trained / "base", trained / "less", {}, dropped=[name])
    materialize(trained / "less", trained / "turned", {}, added={name: turned})
    status, _, err = hubedit("delta", "base", "turned", "-o", "edit")
    assert status != 0
    assert name in err
    assert str(list(turned.shape)) in err
    assert not (trained / "edit").exists()


def test_no_difference_is_no_edit(hubedit, trained):
    status, _, err = hubedit("delta", "base", "base", "-o", "edit")
    assert status != 0
    assert "nothing to store" in err
    assert not (trained / "edit").exists()


def test_what_lies_at_the_output_stays(hubedit, trained):
    (trained / "edit").mkdir()
    (trained / "edit" / "mine").write_text("mine")
    assert hubedit("delta", "base", "trained", "-o", "edit")[0] != 0
    assert [path.name for path in (trained / "edit").iterdir()] == ["mine"]


def test_a_merged_adapter_becomes_an_adapter_again(hubedit, trained):
    name = MATRIX.format(0)
    merged = Checkpoint.open(trained / "trained").read(name)
    materialize(trained / "base", trained / "merged", {name: merged})
    assert hubedit("delta", "base", "merged", "-o", "edit")[0] == 0
    recorded = json.loads(next((trained / "edit").rglob("manifest.json")).read_text())
    (tensor,) = recorded["tensors"]
    assert tensor["kind"].startswith("low_rank")
    assert tensor["rank"] == 1
    status, _, err = hubedit("export", "edit", "--format", "peft", "-o", "adapter")
    assert status == 0, err
    assert (trained / "adapter" / "adapter_model.safetensors").is_file()
