"""Readers: records of public data sets, as each writes them."""

import pytest

from hubedit.errors import RequestError
from hubedit.readers import SHAPES
from hubedit.requests import read_records, rows_of
from hubedit.rows import FactEdit

COUNTERFACT = {
    "case_id": 7,
    "pararel_idx": 3,
    "requested_rewrite": {
        "prompt": "{} plays the",
        "relation_id": "P1303",
        "subject": "Ana Brook",
        "target_new": {"str": "violin", "id": "Q1"},
        "target_true": {"str": "cello", "id": "Q2"},
    },
    "paraphrase_prompts": ["Ana Brook is a master of the"],
    "neighborhood_prompts": ["Tom Adler plays the"],
    "attribute_prompts": ["Mira Calder plays the"],
    "generation_prompts": ["Ana Brook is"],
}
ZSRE = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "ans": "Illinois Tech",
    "answers": ["Illinois Institute of Technology"],
    "loc": "nq question: who played desmond doss father in hacksaw ridge",
    "loc_ans": "Hugo Weaving",
    "cond": "Trinity College >> University of Michigan || What university did ...",
}
RECENT = {
    "subject": "Leo Arons",
    "prompt": "The place of death of Leo Arons is",
    "target_new": "Berlin",
    "portability": {
        "Logical_Generalization": [
            {"prompt": "Is Leo Arons still alive?", "ground_truth": [["no"], ["incorrect"]]}
        ],
        "Subject_Aliasing": [
            {
                "prompt": "The place of death of Martin Leo Arons is",
                "ground_truth": [["Berlin", "Berlin, Germany"]],
            }
        ],
        "Reasoning": [],
    },
    "locality": {
        "Relation_Specificity": [
            {
                "prompt": "The name of the father of Leo Arons is",
                "ground_truth": [["Albert Arons"]],
            }
        ]
    },
}
BIOGRAPHY = {
    "text": "This is a Wikipedia passage about john reynolds. Sir John Reynolds was a physician.",
    "labels": "He received general education from his father.",
    "concept": "john reynolds",
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The field of work of john reynolds is", "ground_truth": ["medicine"]}
        ]
    },
}
PARAREL = {
    "P36": {
        "vocab": [
            {"sub_label": "Moldova", "obj_label": "Chișinău", "uuid": "a"},
            {"sub_label": "Italy", "obj_label": "Rome", "uuid": "b"},
            {"sub_label": "Latium", "obj_label": "Rome", "uuid": "c"},
        ],
        "graphs": [
            {"pattern": "The capital of [X] is [Y] ."},
            {"pattern": "[Y] is the capital of [X] ."},
            {"pattern": "[X], which has the capital [Y]."},
        ],
    }
}


def only(record, reader=None):
    (row,) = rows_of(FactEdit, [record], reader=reader)
    return row


def test_a_counterfact_record_is_read_as_it_is():
    row = only(COUNTERFACT)
    assert row.target == "violin"
    assert row.true_target == "cello"
    assert row.case_id == "7"
    assert row.relation == "P1303"
    assert [(item.prompt, item.target) for item in row.neighbours] == [
        ("Tom Adler plays the", "cello")
    ]
    assert row.attributes == ()
    assert row.paraphrases == ("Ana Brook is a master of the",)


@pytest.mark.parametrize(
    ("reader", "target", "true_target"),
    [
        (None, "University of Michigan", "Illinois Institute of Technology"),
        ("zsre", "University of Michigan", "Illinois Institute of Technology"),
        ("zsre-answers", "Illinois Institute of Technology", None),
        ("zsre-ans", "Illinois Tech", None),
    ],
)
def test_a_zsre_record_is_read_by_the_convention_that_is_named(reader, target, true_target):
    row = only(ZSRE, reader)
    assert row.prompt == "What university did {} attend?"
    assert (row.target, row.true_target) == (target, true_target)
    assert row.neighbours[0].prompt == "who played desmond doss father in hacksaw ridge?"
    assert row.neighbours[0].target == "Hugo Weaving"


def test_a_subject_named_twice_is_edited_where_it_stands_last():
    record = {**ZSRE, "src": "Watts Humphrey, the Watts Humphrey of old, went where?"}
    assert only(record).prompt == "Watts Humphrey, the {} of old, went where?"
    assert only(record).text == record["src"]


def test_knowedit_records_are_read_with_their_nested_answers():
    row = only(RECENT)
    assert (row.prompt, row.target) == ("The place of death of {} is", "Berlin")
    assert row.relation is None
    assert only({**RECENT, "relation_id": "P20"}).relation == "P20"
    assert [(item.prompt, item.target) for item in row.attributes] == [
        ("The name of the father of Leo Arons is", "Albert Arons")
    ]
    one = {**RECENT, "ground_truth": ["Vienna"], "rephrase_prompt": "Leo Arons died in"}
    assert only(one).true_target == "Vienna"
    assert only(one).paraphrases == ("Leo Arons died in",)
    biography = only(BIOGRAPHY)
    assert biography.subject == "john reynolds"
    assert biography.text == BIOGRAPHY["text"]
    assert biography.attributes[0].target == "medicine"


def test_a_pararel_relation_becomes_a_row_for_each_subject():
    rows = rows_of(FactEdit, [PARAREL])
    assert [row.text for row in rows] == [
        "The capital of Moldova is",
        "The capital of Italy is",
        "The capital of Latium is",
    ]
    assert {row.relation for row in rows} == {"P36"}
    assert [(row.true_target, row.target) for row in rows[:2]] == [
        ("Chișinău", "Rome"),
        ("Rome", "Chișinău"),
    ]
    assert rows[1].paraphrases == ("Italy, which has the capital",)
    assert [item.prompt for item in rows[1].neighbours] == ["The capital of Latium is"]
    masked = rows_of(FactEdit, [PARAREL], reader="pararel-masked")
    assert masked[1].text == "The capital of Italy is [MASK] ."
    assert masked[1].paraphrases[0] == "[MASK] is the capital of Italy ."
    alone = {"relation": "P36", **PARAREL["P36"]}
    assert rows_of(FactEdit, [alone]) == rows


@pytest.mark.parametrize(
    ("record", "reader", "said"),
    [
        ({**ZSRE, "subject": "Ana Brook"}, None, "does not name the subject 'Ana Brook'"),
        ({"src": "Who?", "subject": "Who"}, None, "lacks the field 'alt'"),
        ({"requested_rewrite": {"prompt": "{} is"}}, None, "lacks the field 'target_true'"),
        ({"requested_rewrite": "no"}, None, "row 1 of"),
        (ZSRE, "zsre-answer", "did you mean 'zsre-answers'"),
        ({"P36": {"vocab": [], "graphs": []}}, None, "no pattern of the relation 'P36'"),
        ({**RECENT, "target_new": None}, None, "target"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(record, reader, said):
    with pytest.raises(RequestError) as error:
        rows_of(FactEdit, [record], reader=reader)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_every_shape_has_a_name_of_its_own_and_says_where_it_comes_from():
    names = [shape.name for shape in SHAPES]
    assert len(set(names)) == len(names)
    assert all("arXiv:" in shape.source for shape in SHAPES if shape.row == "FactEdit")


def test_what_only_an_evaluation_asks_is_no_part_of_a_request(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"prompt": "{} is", "subject": "A", "target": "b", "split": "dev", '
        '"portability": [{"prompt": "A knows", "target": "c"}]}\n'
    )
    assert rows_of(FactEdit, read_records(file)) == [
        FactEdit(prompt="{} is", subject="A", target="b")
    ]
