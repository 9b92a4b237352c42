"""Edits by which tensors come and go: where transformers can load what is left, and only there."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_card import snippets
from writing import EMBEDDINGS, noted

from hubedit import run
from hubedit.comparison import compare
from hubedit.editions import edits_of
from hubedit.errors import DeltaError, UnsupportedModelError
from hubedit.hub import Hub
from hubedit.shards import Checkpoint
from hubedit.updates import StoredTensor
from hubedit.verification import verify

MASK = "transformer.h.0.attn.masked_bias"
NOTE = {"note.vector": [1.0, -2.0]}


@pytest.fixture
def old(tiny, tmp_path):
    """A model whose file holds a tensor that is no parameter, as files of old versions do."""
    base = tmp_path / "old"
    base.mkdir()
    for path in tiny.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    file = base / "model.safetensors"
    tensors = load_file(file) | {MASK: torch.tensor(-1e4)}
    save_file(tensors, file, metadata={"format": "pt"})
    return base


def test_tensors_come_and_go_all_the_way(old, hubedit, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    config = {"add": NOTE, "drop": [MASK], "row": 2}
    directory = noted(old, tmp_path / "edit", config=config)
    edition = edits_of(str(directory), Hub)
    report = verify(edition, deep=True)
    assert report.problems == []
    (manifest,) = edition.manifests
    records = {tensor.name: tensor for tensor in manifest.tensors}
    assert {name: record.kind for name, record in records.items()} == {
        "note.vector": "add",
        MASK: "drop",
        EMBEDDINGS: "rows",
    }
    new = StoredTensor.from_array(np.array(NOTE["note.vector"], np.float32))
    assert (records["note.vector"].before, records["note.vector"].after) == (None, new.sha256())
    assert records[MASK].after is None
    assert report.tensors["note.vector"] == new.sha256()
    assert MASK not in report.tensors
    monkeypatch.chdir(directory)
    exec(snippets()[0], {})
    monkeypatch.chdir(tmp_path)
    assert hubedit("materialize", directory, "-o", "whole")[0] == 0
    assert hubedit("verify", "whole", "--deep")[0] == 0
    whole = Checkpoint.open(tmp_path / "whole")
    before = Checkpoint.open(old)
    assert set(whole.tensors) == (set(before.tensors) - {MASK}) | {"note.vector"}
    assert {name: whole.read(name).sha256() for name in whole.tensors} == report.tensors
    ours, _ = run.load(str(directory))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype="auto")
    assert all(value.equal(plain.state_dict()[name]) for name, value in ours.state_dict().items())
    assert hubedit("revert", directory, "-o", "back")[0] == 0
    assert hubedit("verify", "back", "--deep")[0] == 0


def test_what_an_edit_added_another_takes_away(old, hubedit, tmp_path):
    first = noted(old, tmp_path / "one", config={"add": NOTE, "drop": [MASK]}, weights=True)
    with pytest.raises(DeltaError, match="already has"):
        noted(first, tmp_path / "again", config={"add": NOTE})
    with pytest.raises(UnsupportedModelError, match="no tensor named"):
        noted(first, tmp_path / "again", config={"drop": [MASK]})
    second = noted(first, tmp_path / "two", config={"drop": ["note.vector"], "add": {MASK: [0.0]}})
    edition = edits_of(str(second), Hub)
    assert verify(edition, deep=True).problems == []
    presence = edition.presence()
    assert (set(presence.added), presence.dropped) == ({MASK}, {MASK})
    differ = compare(str(first), str(second), Hub).tensors
    assert {item.name: item.only_in for item in differ} == {"note.vector": "a", MASK: "b"}
    assert hubedit("revert", second, "-o", "back")[0] == 0
    assert hubedit("verify", "back", "--deep")[0] == 0
    assert edits_of("back", Hub).stack.result == edition.stack.edits[0].result


def test_a_model_that_could_not_be_loaded_any_more_is_refused(tiny, tmp_path):
    with pytest.raises(UnsupportedModelError, match="lack"):
        noted(tiny, tmp_path / "edit", config={"drop": ["transformer.ln_f.weight"]})
    assert not (tmp_path / "edit").exists()


def test_verify_misses_no_tensor_of_included_weights(old, tmp_path):
    directory = noted(old, tmp_path / "edit", config={"add": NOTE}, weights=True)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for changed, reason in (
        ({**tensors, "more": torch.ones(1)}, "hold more"),
        ({name: t for name, t in tensors.items() if name != "note.vector"}, "lack note.vector"),
        ({**tensors, "note.vector": torch.ones(2)}, "note.vector in the weights is not"),
    ):
        save_file(changed, file, metadata={"format": "pt"})
        assert any(reason in item for item in _problems(directory))


def _problems(directory):
    """The problems of the weights, once their file is listed as it is."""
    stack = json.loads((directory / "hubedit.json").read_text())
    content = (directory / "model.safetensors").read_bytes()
    stack["files"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    (directory / "hubedit.json").write_text(json.dumps(stack))
    return verify(edits_of(str(directory), Hub)).problems


def test_files_that_differ_are_compared(tiny, tmp_path):
    one = noted(tiny, tmp_path / "one", config={"files": {"chat_template.jinja": "a"}, "row": 1})
    two = noted(tiny, tmp_path / "two", config={"files": {"chat_template.jinja": "b"}, "row": 1})
    found = compare(str(one), str(two), Hub)
    assert (found.tensors, found.files) == ((), ("chat_template.jinja",))
    assert compare(str(one), str(one), Hub).files == ()
    assert compare(str(tiny), str(one), Hub).files == ("chat_template.jinja",)
