"""What a request to forget asks of a model: prompts with answers, right and wrong, by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hubedit.errors import RequestError
from hubedit.rows import ForgetQA, ForgetRow, ForgetText, Row, continued

T = TypeVar("T")
LIMIT = 300
"""Rows of a part that are asked, at most; TOFU asks as many."""


@dataclass(frozen=True)
class Case:
    """One question, or the beginning of a text, and what may follow.

    `answer` and all other continuations stand as they follow the prompt, with their space; `text`
    is the whole row as a model reads it, and `asks` tells a question from a text.
    `paraphrase` is the question in other words; `correct` is the answer in other words (or itself)
    and `wrong` are answers of the same form that are not true; empty where the row has none.
    """

    row: int
    part: str
    prompt: str
    answer: str
    text: str = ""
    asks: bool = False
    paraphrase: str | None = None
    correct: str = ""
    wrong: tuple[str, ...] = ()


def cases(rows: Sequence[Row], limit: int = LIMIT) -> list[Case]:
    """The cases of each part, in the order of the rows; of long parts evenly many all along.

    A text without a prompt is asked for by its first half, cut between words.

    Raises:
        RequestError: a row is none to forget, or no row is in the part forget.
    """
    made: dict[str, list[Case]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, ForgetRow):
            raise RequestError(
                f"row {number} is a {type(row).__name__}; forgetting is measured on questions with "
                "answers or on texts (fields question and answer, or text)"
            )
        case = _case(number, row)
        if case is not None:
            made.setdefault(row.part, []).append(case)
    if "forget" not in made:
        raise RequestError("the request has no row in the part forget that could be asked")
    return [case for part in made.values() for case in spread(part, limit)]


def _case(number: int, row: ForgetRow) -> Case | None:
    if isinstance(row, ForgetQA):

        def after(text: str) -> str:
            return continued(row.question, text)

        return Case(
            row=number,
            part=row.part,
            prompt=row.question,
            answer=after(row.answer),
            text=row.content,
            asks=True,
            paraphrase=next(iter(row.paraphrases), None),
            correct=after(row.paraphrased_answer or row.answer),
            wrong=tuple(map(after, row.perturbed_answers)),
        )
    if isinstance(row, ForgetText):
        if row.prompt is not None and row.target is not None:
            answer = continued(row.prompt, row.target)
            return Case(number, row.part, row.prompt, answer, text=row.content)
        middle = row.text.rstrip().rfind(" ", 0, len(row.text) // 2 + 1)
        if middle > 0:
            return Case(number, row.part, row.text[:middle], row.text[middle:], text=row.content)
    return None


def spread(some: Sequence[T], limit: int) -> list[T]:
    """At most so many of some, evenly spread."""
    count = min(limit, len(some))
    return [some[index * len(some) // count] for index in range(count)]


def counts(asked: Sequence[Case]) -> dict[str, int]:
    """How many cases each part has."""
    return dict(Counter(case.part for case in asked))


def with_prefix(asked: Sequence[Case], prefix: str) -> list[Case]:
    """The cases with a beginning of the answer put into the model's mouth."""
    return [replace(case, prompt=f"{case.prompt} {prefix}") for case in asked]


def in_other_words(asked: Sequence[Case]) -> list[Case]:
    """The cases asked by their paraphrase, those that have one."""
    return [replace(case, prompt=case.paraphrase) for case in asked if case.paraphrase]


def after_examples(asked: Sequence[Case], shown: Sequence[Case], count: int) -> list[Case]:
    """The cases after `count` others with their answers, a blank line between them."""
    made = []
    for number, case in enumerate(asked):
        others = [one for one in shown if one.row != case.row]
        some = [others[(number + i * 7919) % len(others)] for i in range(min(count, len(others)))]
        before = "".join(f"{one.prompt}{one.answer}\n\n" for one in some)
        made.append(replace(case, prompt=before + case.prompt))
    return made
