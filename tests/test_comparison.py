"""What two models have that the other lacks, with no more read than that takes."""

import json
import shutil

import numpy as np
import pytest

from hubedit.checkpoint import Checkpoint
from hubedit.shards import materialize
from hubedit.updates import StoredTensor

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=2", "--force"]
MATRIX = "transformer.h.{}.mlp.c_proj.weight"


@pytest.fixture
def edits(hubedit, tiny, tmp_path):
    """A copy of the tiny model, one edit of it, and the same with a second edit on top."""
    base = shutil.copytree(tiny, tmp_path / "base")
    apply = ["apply", "--plugin", "rome", *FACT, *LIGHT]
    status, _, err = hubedit(*apply, "--base", base, "--target", "oboe", "-o", "one")
    assert status == 0, err
    two = ["--base", "one", "--target", "cello", "--set", "layer=2", "-o", "two"]
    status, _, err = hubedit(*apply, *two)
    assert status == 0, err
    return tmp_path


def compared(hubedit, *arguments):
    status, out, err = hubedit("diff", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def test_an_edit_differs_from_its_base_by_what_its_manifest_says(hubedit, edits):
    found = compared(hubedit, "base", "one")
    manifest = json.loads(next((edits / "one").rglob("manifest.json")).read_text())
    (tensor,), (recorded,) = found["tensors"], manifest["tensors"]
    for key in ("name", "elements_changed", "relative_norm", "rank"):
        assert tensor[key] == recorded[key]
    assert (tensor["rank_of"], tensor["kinds"]) == ("updates", ["low_rank"])
    assert found["same_base"]
    assert found["b"]["only"] == [manifest["edit"]]
    assert (found["a"]["only"], found["common_edits"]) == ([], [])


def test_two_heights_differ_by_the_edits_between_them(hubedit, edits):
    found = compared(hubedit, "one", "two")
    assert [tensor["name"] for tensor in found["tensors"]] == [MATRIX.format(2)]
    assert len(found["common_edits"]) == len(found["b"]["only"]) == 1
    back = compared(hubedit, "two", "one")
    assert back["a"]["only"] == found["b"]["only"]
    assert back["elements_changed"] == found["elements_changed"] > 0
    status, out, _ = hubedit("diff", "one", "two")
    assert status == 0
    assert out.splitlines()[-1].startswith("1 of ")
    assert "both have 0001-rome-" in out


def test_a_model_does_not_differ_from_itself(hubedit, edits):
    for name in ("base", "two"):
        found = compared(hubedit, name, name)
        assert (found["tensors"], found["elements_changed"]) == ([], 0)


def test_plain_models_are_compared_by_their_values(hubedit, edits):
    status, _, err = hubedit("materialize", "two", "-o", "whole")
    assert status == 0, err
    shutil.rmtree(edits / "whole" / "edits")
    (edits / "whole" / "hubedit.json").unlink()
    plain = {tensor["name"]: tensor for tensor in compared(hubedit, "base", "whole")["tensors"]}
    stack = {tensor["name"]: tensor for tensor in compared(hubedit, "base", "two")["tensors"]}
    assert list(plain) == list(stack)
    for name, tensor in plain.items():
        for key in ("elements_changed", "relative_norm", "shape_a", "dtype_b"):
            assert tensor[key] == stack[name][key]
        assert tensor["kinds"] == []
        assert tensor["rank_of"] == "values"
    assert compared(hubedit, "two", "whole")["tensors"] == []


def test_the_rank_of_plain_differences_is_that_of_what_changed(hubedit, edits):
    name = MATRIX.format(0)
    before = Checkpoint.open(edits / "base").read(name)
    values = before.to_float32().copy()
    values[3] += 1
    values[5, :4] *= 2
    after = StoredTensor.from_array(values).rounded_to(before.dtype)
    names = [path.name for path in (edits / "base").iterdir()]
    materialize(edits / "base", edits / "other", {name: after}, files=names)
    (tensor,) = compared(hubedit, "base", "other")["tensors"]
    changed = int(np.count_nonzero(before.bits() != after.bits()))
    assert (tensor["rank"], tensor["elements_changed"]) == (2, changed)


def test_tensors_of_other_shapes_or_names_are_told_from_headers(hubedit, edits, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config.from_pretrained(edits / "base")
    config.n_layer, config.n_inner = 2, 48
    GPT2LMHeadModel(config).bfloat16().save_pretrained(tmp_path / "smaller")
    found = compared(hubedit, "base", "smaller")
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert not found["same_base"]
    assert tensors[MATRIX.format(2)]["only_in"] == "a"
    matrix = tensors[MATRIX.format(0)]
    assert (matrix["shape_a"], matrix["shape_b"]) == ([64, 32], [48, 32])
    assert matrix["elements_changed"] is None


def test_a_diff_on_the_hub_reads_only_the_touched_tensors_of_the_base(
    localhub, hubedit, tiny, tmp_path
):
    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    apply = ["apply", "--plugin", "rome", "--base", "me/tiny", *FACT, *LIGHT, "--push", "--direct"]
    for target in ("oboe", "cello"):
        status, _, err = hubedit(*apply, "--target", target)
        assert status == 0, err
    before = localhub.bytes_served("/me/tiny/resolve/")
    found = compared(hubedit, "me/tiny-edited@v1", "me/tiny-edited@v2")
    (tensor,) = found["tensors"]
    header = 1 << 16
    read = localhub.bytes_served("/me/tiny/resolve/") - before
    assert 0 < read <= 2 * (header + 2 * tensor["elements_total"])


def test_what_is_not_there_is_named(hubedit, edits):
    status, out, err = hubedit("diff", "one", "./three")
    assert (status, out) == (1, "")
    assert "./three" in err


def test_a_damaged_edit_is_refused(hubedit, edits):
    delta = next((edits / "one").rglob("delta.safetensors"))
    delta.write_bytes(delta.read_bytes()[:-4])
    status, _, err = hubedit("diff", "base", "one")
    assert status == 1
    assert "delta.safetensors" in err
