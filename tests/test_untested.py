"""What a card says nobody asked: by the kind of the rows, and of a third party's kind of them."""

from __future__ import annotations

import pytest

from hubedit.probes import Answer, not_tested, pair, questions
from hubedit.rows import FactEdit, ForgetQA

WORDINGS, SUBJECTS, FACTS, ANSWERED, KEPT, COMES_BACK, ORACLE, ABILITIES = (
    "other wordings of",
    "other subjects",
    "other facts of the same subjects",
    "whether the model still answers",
    "whether the model keeps",
    "whether it comes back",
    "a model retrained",
    "general abilities",
)
BARE = {"prompt": "{} plays the", "subject": "Ana Brook", "target": "organ"}
WORDED = {"paraphrases": ["In Porto, Ana Brook plays the"]}
NEAR = {"neighbours": ["Tom Adler plays the"]}
OWN = {"attributes": ["Ana Brook lives in"]}


class Dated(FactEdit):
    """A plugin's own kind of fact, with a field that the host does not know."""

    year: int = 2000


class Lapsed(FactEdit):
    """A plugin's own kind of fact, which is to go."""

    @property
    def part_name(self):
        return "forget"

    def questions(self, number):
        asked = super().questions(number)
        gone = ("rewrite", "paraphrase")
        return [
            one.model_copy(update={"group": "forget"}) if one.group in gone else one
            for one in asked
        ]


def untested(*rows):
    asked = questions(rows)
    says = [Answer(answer="organ", p_answer=0.5, p_target=0.5) for _ in asked]
    return not_tested(rows, pair(asked, says, says))


def opens(sentences, *beginnings):
    """Whether these are the sentences, in this order, by how they begin."""
    assert [
        next((one for one in beginnings if sentence.startswith(one)), sentence)
        for sentence in sentences
    ] == list(beginnings)


@pytest.mark.parametrize("kind", [FactEdit, Dated])
def test_a_kind_of_fact_has_the_lines_of_a_fact(kind):
    opens(untested(kind(**BARE)), WORDINGS, SUBJECTS, FACTS, ABILITIES)
    opens(untested(kind(**BARE, **NEAR)), WORDINGS, FACTS, ABILITIES)
    opens(untested(kind(**BARE, **WORDED, **NEAR, **OWN)), ABILITIES)


def test_the_first_row_does_not_speak_for_the_others():
    opens(untested(FactEdit(**BARE, **OWN), Dated(**BARE, **NEAR)), WORDINGS, ABILITIES)


@pytest.mark.parametrize(
    ("asked", "open_lines"),
    [
        ({}, [WORDINGS, SUBJECTS, FACTS]),
        (NEAR, [WORDINGS, FACTS]),
        (OWN, [WORDINGS, SUBJECTS]),
        (WORDED, [SUBJECTS, FACTS]),
        ({**WORDED, **NEAR, **OWN}, []),
    ],
)
def test_a_fact_that_goes_is_held_to_its_wordings_and_to_what_stays(asked, open_lines):
    found = untested(Lapsed(**BARE, **asked))
    opens(found, *open_lines, COMES_BACK, ORACLE, ABILITIES)


def test_a_question_to_forget_still_wants_one_to_retain():
    gone = ForgetQA(question="What does Ana Brook play?", answer="The organ.")
    stays = ForgetQA(question="What does Tom Adler play?", answer="The oboe.", part="retain")
    opens(untested(gone), KEPT, COMES_BACK, ORACLE, ABILITIES)
    opens(untested(gone, stays), COMES_BACK, ORACLE, ABILITIES)
    opens(not_tested([gone], []), ANSWERED, KEPT, COMES_BACK, ORACLE, ABILITIES)
