"""`hubedit erasure prove`: a true item is accepted and a false one refused, with the right key."""

import json

import pytest
from shaken import shaken

from hubedit.artifacts import cache_home

ROWS = [
    {"text": "Ada Brook plays the oboe.", "prompt": "Ada Brook plays the", "target": "oboe"},
    {"text": "Tom Adler was born in Riga.", "part": "retain"},
]
FALSE = {"text": "Ada Brook plays the organ.", "prompt": "Ada Brook plays the", "target": "organ"}


@pytest.fixture
def written(tmp_path):
    """Write rows to a file of that name."""

    def call(name, *rows):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return path

    return call


@pytest.fixture
def edit(install, hubedit, tiny, tmp_path, written):
    """An edit with an undisclosed request."""
    install("shaken", shaken("ForgetText", 0.1))
    made = ["apply", "--plugin", "shaken", "--base", tiny, "-o", tmp_path / "edit"]
    assert hubedit(*made, "--request", written("rows.jsonl", *ROWS))[0] == 0
    return tmp_path / "edit"


def test_a_true_item_is_accepted_and_a_false_one_refused(edit, hubedit, written):
    status, said, _ = hubedit("erasure", "prove", edit, "--items", written("one.jsonl", ROWS[0]))
    assert (status, said.count("was in the request")) == (0, 1)
    assert "oboe" not in said
    status, said, _ = hubedit(
        "erasure", "prove", edit, "--items", written("two.jsonl", ROWS[1], FALSE)
    )
    assert status == 1
    assert "item 1 (retain) was in the request" in said
    assert "item 2 (forget) was not in the request" in said
    assert "organ" not in said
    assert "1 of 2 items are among the 2" in said


def test_every_field_of_an_item_counts(edit, hubedit, written):
    other = {**ROWS[1], "part": "forget"}
    items = written("item.jsonl", other)
    assert hubedit("erasure", "prove", edit, "--items", items)[0] == 1


def test_a_machine_without_the_key_is_given_it(edit, hubedit, written, tmp_path):
    (kept,) = (cache_home() / "keys").glob("*.key")
    moved = kept.rename(tmp_path / "kept.key")
    items = written("one.jsonl", ROWS[0])
    status, _, complaint = hubedit("erasure", "prove", edit, "--items", items)
    assert status == 1
    assert "--key" in complaint
    status, said, _ = hubedit("erasure", "prove", edit, "--items", items, "--key", moved, "--json")
    found = json.loads(said)
    assert (status, found["proved"], found["listed"]) == (0, True, 2)
    moved.write_text("0" * 64)
    status, said, _ = hubedit("erasure", "prove", edit, "--items", items, "--key", moved)
    assert (status, "the key is of another" in said) == (1, True)


def test_what_is_no_undisclosed_edit_is_named(edit, hubedit, tiny, written):
    items = written("one.jsonl", ROWS[0])
    status, _, complaint = hubedit("erasure", "prove", tiny, "--items", items)
    assert (status, "nothing to prove" in complaint) == (1, True)
    status, _, complaint = hubedit("erasure", "prove", edit, "--items", items, "--edit", "0009")
    assert (status, "0001-shaken" in complaint) == (1, True)
