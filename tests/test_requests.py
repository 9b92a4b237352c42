"""Rows: what is read, and how each mistake is named."""

import json

import pytest

from hubedit.errors import RequestError
from hubedit.requests import read_records, request_digest, rows_of
from hubedit.rows import FactEdit


def fact_edits(records, source="the request"):
    return rows_of(FactEdit, records, source)


ROW = {"prompt": "{} plays the", "subject": "Ana Brook", "target": "violin"}


def test_a_row_knows_its_text_and_where_the_subject_is():
    row = FactEdit(prompt="In Porto, {} plays the", subject="Ana Brook", target=" violin")
    assert row.text == "In Porto, Ana Brook plays the"
    start, end = row.subject_span
    assert row.text[start:end] == "Ana Brook"
    assert row.continuation == " violin"


def test_a_counterfact_record_is_read_as_it_is():
    record = {
        "case_id": 7,
        "requested_rewrite": {
            "prompt": "{} plays the",
            "relation_id": "P1303",
            "subject": "Ana Brook",
            "target_new": {"str": "violin", "id": "Q1"},
            "target_true": {"str": "cello", "id": "Q2"},
        },
        "paraphrase_prompts": ["Ana Brook is a master of the"],
        "neighborhood_prompts": ["Tom Adler plays the"],
        "generation_prompts": ["Ana Brook is"],
    }
    (row,) = fact_edits([record])
    assert row.target == "violin"
    assert row.true_target == "cello"
    assert row.case_id == "7"
    assert row.neighbours[0].target == "cello"
    assert row.paraphrases == ("Ana Brook is a master of the",)


def test_a_prompt_that_names_its_subject_needs_no_hole():
    (row,) = fact_edits([{**ROW, "prompt": "Ana Brook plays the"}])
    assert row.prompt == "{} plays the"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "{} and {} play the"}, "holds {} 2 times"),
        ({"prompt": "She plays the"}, "does not name the subject 'Ana Brook'"),
        ({"prompt": "Ana Brook knows Ana Brook, the"}, "names 2 times the subject"),
        ({"subject": " "}, "the subject is empty"),
        ({"target": ""}, "the target is empty"),
        ({"targte": "x"}, "'targte' is not known"),
        ({"target": None}, "target"),
        ({"neighbours": "Tom"}, "neighbours"),
    ],
)
def test_a_bad_row_is_named_with_its_number_and_field(change, said):
    with pytest.raises(RequestError) as error:
        fact_edits([ROW, {**ROW, **change}], "facts.jsonl")
    assert "row 2 of facts.jsonl" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_field_is_named():
    with pytest.raises(RequestError, match="'subject' is missing"):
        fact_edits([{"prompt": "{} plays the", "target": "violin"}])


def test_an_empty_request_is_refused():
    with pytest.raises(RequestError, match="holds no rows"):
        fact_edits([])


def test_files_of_rows_are_read_and_mistakes_in_them_named(tmp_path):
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\n")
    assert len(read_records(lines)) == 2
    one = tmp_path / "row.json"
    one.write_text(json.dumps(ROW))
    assert len(read_records(one)) == 1
    lines.write_text("{}\n{oops\n")
    with pytest.raises(RequestError, match="line 2 of"):
        read_records(lines)
    with pytest.raises(RequestError, match="does not exist"):
        read_records(tmp_path / "none.jsonl")
    other = tmp_path / "rows.xml"
    other.write_text("")
    with pytest.raises(RequestError, match="suffix"):
        read_records(other)


def test_the_digest_follows_the_content_alone():
    first, second = fact_edits([ROW, {**ROW, "target": "cello"}])
    assert request_digest([first]) == request_digest(fact_edits([dict(reversed(ROW.items()))]))
    assert request_digest([first]) != request_digest([second])
