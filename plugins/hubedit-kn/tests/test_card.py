"""What the card of an edit says: what was done to each fact, and what nobody asked."""

from __future__ import annotations

import pytest

from hubedit.testing import edited

BARE = {"prompt": "{} plays the", "subject": "Ada Brook", "true_target": "cello"}
NEAR = {"neighbours": [{"prompt": "Tom Adler plays the", "target": "oboe"}]}
OWN = {"attributes": [{"prompt": "Ada Brook lives in", "target": "Porto"}]}
ERASE = {"operation": "erase", "steps": 2, "enough": None}
UPDATE = {"operation": "update", "steps": 2, "enough": None}
LINES = {
    "paraphrases": "- other wordings of the changed facts",
    "neighbours": "- other subjects",
    "attributes": "- other facts of the same subjects",
    "retain": "- whether the model keeps",
}


def card(directory, row, output, config):
    made = edited(directory, "kn", [row], output, **config)
    return (made / "README.md").read_text(encoding="utf-8")


def said(text):
    return {name for name, line in LINES.items() if line in text}


@pytest.mark.parametrize(
    ("row", "config"),
    [({**BARE, "target": "oboe"}, UPDATE), (BARE, ERASE)],
    ids=["update", "erase"],
)
def test_a_bare_fact_lists_what_was_not_asked(tiny_directories, tmp_path, row, config):
    text = card(tiny_directories["causal"], row, tmp_path / "out", config)
    assert said(text) == {"paraphrases", "neighbours", "attributes"}
    text = card(tiny_directories["causal"], {**row, **NEAR}, tmp_path / "near", config)
    assert said(text) == {"paraphrases", "attributes"}


def test_what_was_asked_of_others_counts_as_asked_when_a_fact_goes(tiny_directories, tmp_path):
    row = {**BARE, **NEAR, **OWN, "paraphrases": ["In Porto, Ada Brook plays the"]}
    text = card(tiny_directories["causal"], row, tmp_path / "out", ERASE)
    assert "neighbour 100 % (1 of 1) unchanged" in text
    assert said(text) == set()
