"""Two models on the same cases: each is asked by itself, and the scores compare what they said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubedit.evaluating import neutral, writing
from hubedit.evaluating.answers import Heard, hear
from hubedit.evaluating.cases import FactCase, Item, items
from hubedit.evaluating.scoring import Score, Told, item_scores, neutral_scores, text_score
from hubedit.evaluating.texts import Lexicon, fluency
from hubedit.manifest import Record

if TYPE_CHECKING:
    from hubedit.asking import Asking
    from hubedit.evaluating.neutral import Predictions

REFERENCES = 10
"""Texts of the corpus that stand in for a case's own references, at most."""


class Skipped(Record):
    """A metric that was not measured, and why."""

    metric: str
    reason: str


@dataclass(frozen=True)
class Questionnaire:
    """All that two models are asked: items, beginnings of texts, neutral texts.

    `beginnings` and `references` have an entry for each text to be written; `references` are empty
    where nothing is known to compare with.
    """

    items: Sequence[Item]
    beginnings: Sequence[str]
    references: Sequence[str]
    neutral: Sequence[str]
    corpus: Sequence[str]


@dataclass(frozen=True)
class Replies:
    """What one model said to a questionnaire; `silent` says why it wrote no texts, if so."""

    heard: Sequence[Heard]
    written: Sequence[str]
    neutral: Sequence[Predictions]
    silent: str = ""


def questionnaire(cases: Sequence[FactCase], corpus: Sequence[str]) -> Questionnaire:
    """What is asked on cases that one edit makes together.

    Texts are begun as the cases say, else with the subject alone. A text is compared with the
    references of its case, else with the texts of the corpus that hold the new answer and not the
    subject. Neutral are the texts of the corpus that name no subject of a case.
    """
    begun = [(case, start) for case in cases for start in case.generations or (case.subject,)]
    subjects = [case.subject for case in cases]
    return Questionnaire(
        items=items(cases),
        beginnings=[start for _, start in begun],
        references=[_references(case, corpus) for case, _ in begun],
        neutral=[text for text in corpus if not any(name in text for name in subjects)],
        corpus=corpus,
    )


def _references(case: FactCase, corpus: Sequence[str]) -> str:
    if case.references:
        return "\n".join(case.references)
    word = re.compile(rf"\b{re.escape(case.target.strip())}\b")
    found = (text for text in corpus if word.search(text) and case.subject not in text)
    return "\n".join(text for text, _ in zip(found, range(REFERENCES), strict=False))


def replies(model: Asking, asked: Questionnaire, *, texts: bool = True, seed: int = 0) -> Replies:
    """Put a questionnaire to a model.

    Args:
        texts: whether the model writes texts too, which takes longest.
        seed: of the texts.
    """
    silent = "" if texts else "no texts were asked for"
    if model.layout.architecture != "causal":
        silent = writing.NO_TEXT
    return Replies(
        heard=hear(model, asked.items),
        written=[] if silent else writing.write_on(model, asked.beginnings, seed),
        neutral=neutral.read(model, asked.neutral),
        silent=silent,
    )


def compare(
    asked: Questionnaire, before: Replies, after: Replies, seed: int = 0
) -> tuple[list[Score], list[Skipped]]:
    """Every score that the replies give, and what was not measured."""
    scores = item_scores([Told(0, asked.items, before.heard, after.heard)], seed)
    skipped = [
        Skipped(metric=f"{group}.*", reason=f"no case names {what}")
        for group, what in _ASKED.items()
        if not any(item.group == group for item in asked.items)
    ]
    scores += neutral_scores(neutral.shifts(before.neutral, after.neutral), seed)
    if not after.neutral:
        reason = neutral.NO_SCORE if asked.neutral else "there are no neutral texts; give --texts"
        skipped.append(Skipped(metric="neutral.*", reason=reason))
    if not after.written:
        skipped.append(Skipped(metric="text.*", reason=after.silent))
        return scores, skipped
    scores.append(
        text_score("fluency", before.written, after.written, lambda _, text: fluency(text), seed)
    )
    compared = [number for number, text in enumerate(asked.references) if text]
    if not compared:
        skipped.append(Skipped(metric="text.consistency", reason="no case names references"))
        return scores, skipped
    lexicon = Lexicon([*asked.corpus, *(asked.references[number] for number in compared)])
    scores.append(
        text_score(
            "consistency",
            [before.written[number] for number in compared],
            [after.written[number] for number in compared],
            lambda number, text: lexicon.cosine(text, asked.references[compared[number]]),
            seed,
        )
    )
    return scores, skipped


_ASKED = {
    "paraphrase": "paraphrases",
    "portability": "portability prompts",
    "neighbour": "neighbours",
    "attribute": "attributes",
}
