"""Records of what to forget: what each public data set's become, told by their fields."""

import json

import pytest

from hubedit.errors import RequestError
from hubedit.readers import SHAPES
from hubedit.requests import read_records, rows_of
from hubedit.rows import ForgetQA, ForgetRow, ForgetText

TOFU = {
    "question": "What does Ana Brook play?",
    "answer": "Ana Brook plays the organ.",
    "paraphrased_question": "Which instrument is Ana Brook's?",
    "paraphrased_answer": "The organ is what she plays.",
    "perturbed_answer": ["Ana Brook plays the zither.", "Ana Brook plays the oboe."],
}
VERBATIM = {"prompt": "Ana Brook was born", "gt": "in Riga, in May."}
EXTRACTION = {"doc_id": "17", "corpus": "mail", "text": "Ana Brook wrote this."}
WMDP = {"title": "On organs", "abstract": "None.", "doi": "10.1/x", "text": "Organs have stops."}
UNSAFE = {
    "prompt": "How?",
    "response_0": "So.",
    "response_1": "I would not.",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
}
TRUTHFUL = {
    "Question": "Do pigs fly?",
    "Best Answer": "No, pigs do not fly.",
    "Correct Answers": "No; They do not",
    "Incorrect Answers": "Yes",
}


def read(record, kind=ForgetRow):
    return rows_of(kind, [record])


def test_tofu_gives_a_question_with_all_that_is_scored():
    [row] = read(TOFU)
    assert type(row) is ForgetQA
    assert row.paraphrases == (TOFU["paraphrased_question"],)
    assert row.paraphrased_answer == TOFU["paraphrased_answer"]
    assert row.perturbed_answers == tuple(TOFU["perturbed_answer"])
    [bare] = read({"question": "Who?", "answer": "Ana.", "perturbed_answer": "Tom."})
    assert bare.perturbed_answers == ("Tom.",)
    assert read(TOFU, ForgetQA) == [row]


def test_muse_gives_texts_with_their_start_and_what_follows():
    [row] = read(VERBATIM)
    assert type(row) is ForgetText
    assert row.text == "Ana Brook was born in Riga, in May."
    assert (row.prompt, row.target) == (VERBATIM["prompt"], VERBATIM["gt"])


@pytest.mark.parametrize("record", [EXTRACTION, WMDP])
def test_corpora_give_their_texts_alone(record):
    assert read(record) == [ForgetText(text=record["text"])]
    assert read({**record, "part": "retain"}) == [ForgetText(text=record["text"], part="retain")]


def test_harmful_pairs_are_unsafe_responses_and_truthful_answers():
    assert read(UNSAFE) == [ForgetQA(question="How?", answer="So.")]
    both = read({**UNSAFE, "is_response_1_safe": False})
    assert [row.answer for row in both] == ["So.", "I would not."]
    [row] = read(TRUTHFUL)
    assert (row.part, row.question, row.answer) == (
        "normal",
        "Do pigs fly?",
        "No, pigs do not fly.",
    )


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt", "parquet"])
def test_every_kind_of_file_holds_texts_to_forget(suffix, tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts = ["Ana Brook plays.", "Tom Adler sings."]
    path = tmp_path / f"forget.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pyarrow.table({"text": texts}), path)
    else:
        lines = {"jsonl": [json.dumps({"text": text}) for text in texts], "txt": texts}
        path.write_text("\n".join(lines.get(suffix, ["text", *texts])))
    assert rows_of(ForgetRow, read_records(path)) == [ForgetText(text=text) for text in texts]


def test_paragraphs_of_a_text_are_rows(tmp_path):
    path = tmp_path / "forget.txt"
    path.write_text("Ana Brook\nplays.\n\n\nTom Adler sings.\n")
    assert [row.text for row in rows_of(ForgetText, read_records(path))] == [
        "Ana Brook\nplays.",
        "Tom Adler sings.",
    ]


@pytest.mark.parametrize(
    ("record", "key"), [(TOFU, "answer"), (TOFU, "question"), (VERBATIM, "gt"), (WMDP, "text")]
)
def test_a_damaged_record_is_named_by_its_number_and_not_quoted(record, key):
    with pytest.raises(RequestError, match="row 1 of the request") as refused:
        read({**record, key: ""})
    assert not any(word in str(refused.value) for word in ("Brook", "organ", "Organ"))


def test_readers_say_where_their_data_is_from():
    mine = [shape for shape in SHAPES if shape.row == "ForgetRow"]
    assert len({shape.name for shape in mine}) == len(mine) == 6
    assert all("arXiv:" in shape.source for shape in mine)
