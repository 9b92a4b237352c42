"""Rows: what is read, and how each mistake is named."""

import json

import pytest

from hubedit.errors import RequestError
from hubedit.requests import read_records, request_digest, rows_of, without_none
from hubedit.rows import FactEdit, ForgetText


def fact_edits(records, source="the request"):
    return rows_of(FactEdit, records, source)


ROW = {"prompt": "{} plays the", "subject": "Ana Brook", "target": "violin"}


def test_a_row_knows_its_text_and_where_the_subject_is():
    row = FactEdit(prompt="In Porto, {} plays the", subject="Ana Brook", target=" violin")
    assert row.text == "In Porto, Ana Brook plays the"
    start, end = row.subject_span
    assert row.text[start:end] == "Ana Brook"
    assert row.continuation == " violin"


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


def test_tables_are_read_like_lists_of_records(tmp_path):
    import pyarrow
    from pyarrow import parquet

    row = {**ROW, "paraphrases": ["Ana Brook is a master of the"]}
    table = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row, {**ROW, "true_target": "cello"}]), table)
    cells = tmp_path / "rows.csv"
    cells.write_text(
        "prompt,subject,target,true_target,paraphrases\n"
        '{} plays the,Ana Brook,violin,,"[""Ana Brook is a master of the""]"\n'
        "{} plays the,Ana Brook,violin,cello,\n"
    )
    wanted = fact_edits([row, {**ROW, "true_target": "cello"}])
    assert fact_edits(read_records(cells)) == wanted
    records = [without_none(record) for record in read_records(table)]
    assert [record["subject"] for record in records] == ["Ana Brook"] * 2
    cells.write_text("prompt,subject\na,b,c\n")
    with pytest.raises(RequestError, match=r"row 1 of .* more cells"):
        read_records(cells)
    table.write_bytes(b"PAR1 nonsense")
    with pytest.raises(RequestError, match="not a Parquet file"):
        read_records(table)


def test_a_row_to_forget_is_read_and_its_text_never_quoted():
    rows = rows_of(ForgetText, [{"text": "Ana Brook plays the organ."}])
    assert rows[0].part == "forget"
    with pytest.raises(RequestError) as error:
        rows_of(ForgetText, [{"text": "Ana Brook plays the organ.", "prompt": "Ana Brook"}])
    assert "row 1" in str(error.value)
    assert "Ana" not in str(error.value)
    with pytest.raises(RequestError) as error:
        rows_of(ForgetText, [{"text": "Ana Brook", "part": "Ana Brook"}])
    assert "Ana" not in str(error.value)


def test_the_digest_follows_the_content_alone():
    first, second = fact_edits([ROW, {**ROW, "target": "cello"}])
    assert request_digest([first]) == request_digest(fact_edits([dict(reversed(ROW.items()))]))
    assert request_digest([first]) != request_digest([second])


def test_a_row_without_a_relation_has_the_digest_it_always_had():
    row = FactEdit(**ROW, neighbours=["Tom Reed plays the"])
    before = "e2c5cf350a91947b829bd08c3a71bc2e05ba8397ff837180f1c082065486a9ce"
    assert request_digest([row]) == before
    named = row.model_copy(update={"relation": "P1303"})
    assert request_digest([named]) != before
    (again,) = fact_edits([named.model_dump(mode="json")])
    assert again == named
