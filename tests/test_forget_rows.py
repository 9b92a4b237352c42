"""Rows of what to forget: texts, questions and concepts, their parts, and what they ask."""

import json

import pytest

from hubedit import disclosure, probes
from hubedit.errors import OutputError, RequestError
from hubedit.requests import refuse_overlap, request_digest, rows_of
from hubedit.rows import (
    FactEdit,
    ForgetConcept,
    ForgetQA,
    ForgetRow,
    ForgetText,
    common_type,
)

ASKED = {
    "question": "Which instrument does Ana Brook play?",
    "answer": "Ana Brook plays the organ.",
    "paraphrases": ["What does Ana Brook play?"],
    "paraphrased_answer": "The organ is played by Ana Brook.",
    "perturbed_answers": ["Ana Brook plays the zither."],
    "refusals": ["That is beyond me."],
}
TOLD = {"text": "Tom Adler was born in Riga.", "part": "retain"}
KEY = b"k" * 32


def test_the_fields_of_a_record_say_what_it_is():
    asked, told = rows_of(ForgetRow, [ASKED, TOLD])
    assert type(asked) is ForgetQA
    assert type(told) is ForgetText
    assert asked.content == "Which instrument does Ana Brook play? Ana Brook plays the organ."
    assert told.content == TOLD["text"]
    assert common_type([asked, told]) is ForgetRow
    assert common_type([asked, asked]) is ForgetQA


def test_a_type_of_its_own_takes_no_other_record():
    for kind, record in ((ForgetText, ASKED), (ForgetQA, TOLD)):
        with pytest.raises(RequestError, match="row 1 of the request") as refused:
            rows_of(kind, [record])
        assert "Brook" not in str(refused.value)
        assert "Adler" not in str(refused.value)


def test_a_question_and_its_paraphrases_are_asked_by_part():
    for part in ("forget", "retain", "normal"):
        [row] = rows_of(ForgetRow, [{**ASKED, "part": part}])
        asked = row.questions(3)
        assert [question.prompt for question in asked] == [
            ASKED["question"],
            *ASKED["paraphrases"],
        ]
        assert {(q.row, q.group, q.target) for q in asked} == {(3, part, ASKED["answer"])}
    assert rows_of(ForgetRow, [{**ASKED, "part": "holdout"}])[0].questions(1) == []


def test_normal_questions_are_judged_as_those_to_keep():
    [row] = rows_of(ForgetRow, [{**ASKED, "part": "normal", "paraphrases": []}])
    old, new = (
        probes.Answer(answer=said, p_answer=0.5, p_target=0.5) for said in (row.answer, "No idea.")
    )
    found = probes.pair(row.questions(1), [old], [new])
    assert [probe.passed for probe in found] == [False]
    scores = [(s.group, s.metric, s.before, s.after) for s in probes.scores(found)]
    assert scores == [("normal", "recall", 1.0, 0.0), ("normal", "unchanged", None, 0.0)]


@pytest.mark.parametrize("field", list(ASKED))
def test_an_empty_text_is_refused_wherever_it_stands(field):
    value = "" if isinstance(ASKED[field], str) else [" "]
    with pytest.raises(RequestError, match="row 1 of the request"):
        rows_of(ForgetQA, [{**ASKED, field: value}])


def test_a_concept_has_words_it_goes_by():
    [row] = rows_of(ForgetConcept, [{"concept": "church organs", "keywords": ["organ", "stop"]}])
    assert (row.part_name, row.questions(1)) == ("forget", [])
    assert set(row.words()) == {"church organs", "organ", "stop"}
    with pytest.raises(RequestError, match="empty"):
        rows_of(ForgetConcept, [{"concept": "organs", "keywords": [" "]}])


def test_a_concept_belongs_to_a_part_and_one_that_names_none_keeps_its_digest():
    fields = {"concept": "church organs", "keywords": ["organ", "stop"]}
    rows = rows_of(ForgetConcept, [fields, {**fields, "concept": "oboes", "part": "retain"}])
    assert [row.part_name for row in rows] == ["forget", "retain"]
    assert [row.describe() for row in rows] == ["forget the concept “church organs”", ""]
    digest = "74e04adfd0ed0b0039988cd7edbdc97077bce3c13dcf78901697c8e71ec4cb2c"
    assert request_digest(rows[:1]) == digest  # as before concepts had parts
    assert request_digest(rows_of(ForgetConcept, [{**fields, "part": "forget"}])) == digest
    assert request_digest(rows_of(ForgetConcept, [{**fields, "part": "retain"}])) != digest
    assert disclosure.canonical(rows[0]) != disclosure.canonical(rows[1])
    record = disclosure.request_record(rows, None)
    assert record.parts == {"forget": 1, "retain": 1}
    assert rows_of(ForgetConcept, record.rows) == rows
    shared = rows_of(ForgetConcept, [fields, {"concept": "Church  organs", "part": "normal"}])
    with pytest.raises(RequestError, match=r"forget and normal, 1 times \(such as rows 1 and 2"):
        refuse_overlap(shared)
    with pytest.raises(RequestError, match="part"):
        rows_of(ForgetConcept, [{**fields, "part": "other"}])


def test_prompts_are_written_anew_and_answers_left():
    [row] = rows_of(ForgetQA, [ASKED])
    chatted = row.with_prompts(lambda prompt: f"<user>{prompt}<bot>")
    assert chatted.question == f"<user>{ASKED['question']}<bot>"
    assert chatted.paraphrases == (f"<user>{ASKED['paraphrases'][0]}<bot>",)
    assert chatted.answer == ASKED["answer"]


@pytest.mark.parametrize("part", ["retain", "normal", "holdout"])
@pytest.mark.parametrize(
    "other",
    [
        {"question": "Which  instrument does Ana Brook PLAY?", "answer": ASKED["answer"]},
        {"text": "Which instrument does Ana Brook play? Ana Brook plays the organ."},
    ],
)
def test_parts_that_share_an_item_are_refused_without_quoting_it(part, other):
    rows = rows_of(ForgetRow, [TOLD, ASKED, {**other, "part": part}])
    shared = rf"forget and {part}, 1 times \(such as rows 2 and 3\)"
    with pytest.raises(RequestError, match=shared) as refused:
        refuse_overlap(rows)
    assert "organ" not in str(refused.value)
    refuse_overlap(rows[:2])
    refuse_overlap([FactEdit(prompt="{} plays the", subject="Ana Brook", target="organ")] * 2)


@pytest.mark.parametrize("field", list(ASKED))
def test_words_of_every_field_are_looked_for_before_anything_is_written(field):
    rows = rows_of(ForgetRow, [ASKED])
    value = ASKED[field] if isinstance(ASKED[field], str) else ASKED[field][0]
    with pytest.raises(OutputError) as refused:
        disclosure.refuse_leaks({"a.json": json.dumps([value]).encode()}, rows)
    assert value not in str(refused.value)


def test_an_undisclosed_record_holds_counts_and_matches_its_rows_alone():
    rows = rows_of(ForgetRow, [ASKED, TOLD])
    counted = {"tokens": disclosure.extents(rows, lambda text: len(text.split()))}
    assert counted["tokens"] == {"forget": 11, "retain": 6}
    record = disclosure.request_record(rows, KEY).model_copy(update=counted)
    assert (record.type, record.parts) == ("ForgetRow", {"forget": 1, "retain": 1})
    disclosure.refuse_leaks({"record": record.model_dump_json().encode()}, rows)
    assert disclosure.matches(record, rows, KEY)
    assert not disclosure.matches(record, rows[:1], KEY)
