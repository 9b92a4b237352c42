"""What is drawn for each optimiser step, stream by stream; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

import hubedit
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.parts import Parts
from hubedit_unlearn.refusals import REFUSALS
from hubedit_unlearn.texts import Example, answer_of, answered

T = TypeVar("T")
Item = tuple[Example, ...]
"""Examples that belong together and stay in one batch."""


@dataclass(frozen=True)
class Drawing:
    """What streams draw from, and the one source of randomness they share.

    `size` is the number of items in a step where the part has as many.
    """

    model: hubedit.EditableModel
    parts: Parts
    config: TrainingConfig
    size: int
    generator: torch.Generator

    def named(self, name: str) -> Iterator[list[Item]]:
        """The stream of that name: the items of one step after another, without end."""
        return STREAMS[name](self)


def _part(name: str) -> Callable[[Drawing], Iterator[list[Item]]]:
    def stream(drawing: Drawing) -> Iterator[list[Item]]:
        examples: list[Example] = getattr(drawing.parts, name)
        for some in _drawn(examples, drawing):
            yield [(example,) for example in some]

    return stream


def _refused_and_retain(drawing: Drawing) -> Iterator[list[Item]]:
    """Forget questions, each with a refusal drawn anew, beside as many retain examples."""
    choices = refused(drawing.model, drawing.parts, drawing.config)
    retained = (item for step in _part("retain")(drawing) for item in step)
    for some in _drawn(choices, drawing):
        said = [_one(refusals, drawing.generator) for refusals, _ in some]
        yield [(refusal, *next(retained)) for refusal in said]


def _refusal_over_answer(drawing: Drawing) -> Iterator[list[Item]]:
    """Forget questions, each with a refusal and with its answer."""
    count = getattr(drawing.config, "refusals", 1)
    choices = []
    for refusals, answer in refused(drawing.model, drawing.parts, drawing.config):
        order = torch.randperm(len(refusals), generator=drawing.generator)[:count]
        choices.append(([refusals[index] for index in order.tolist()], answer))
    for some in _drawn(choices, drawing):
        yield [(_one(refusals, drawing.generator), answer) for refusals, answer in some]


def _random_answers(drawing: Drawing) -> Iterator[list[Item]]:
    """Forget questions, each with the same few answers to other questions, drawn for each step."""
    rows, longest, ended = drawing.parts.rows, drawing.parts.longest, drawing.config.end_of_text
    forget = [row for row in rows if row.part == "forget"]
    refused(drawing.model, drawing.parts, drawing.config)
    pools = (
        sorted({answer for row in rows if row.part == part and (answer := answer_of(row))})
        for part in ("normal", "retain")
    )
    pool = next((pool for pool in pools if pool), None)
    if pool is None:
        raise hubedit.MethodError(
            "there are no answers to other questions to draw from; add rows of part normal or "
            "retain with a question and an answer"
        )
    count = min(getattr(drawing.config, "random_answers", 1), len(pool))
    for some in _drawn(forget, drawing):
        order = torch.randperm(len(pool), generator=drawing.generator)[:count].tolist()
        made = [
            [answered(drawing.model, row, pool[index], longest, ended) for index in order]
            for row in some
        ]
        items = [tuple(each for each in examples if each is not None) for examples in made]
        if not all(items):
            raise hubedit.MethodError(
                f"a question to forget has more than {longest} tokens with any of the answers to "
                "other questions that were drawn for it; set max_tokens higher if the model can "
                "read more, or give rows with shorter answers"
            )
        yield items


def _later_tokens(drawing: Drawing) -> Iterator[list[Item]]:
    """Forget examples whose first scored tokens are left alone."""
    count = getattr(drawing.config, "skip_first", 0)
    left = [example.without_first(count) for example in drawing.parts.forget]
    left = [example for example in left if example.labelled]
    if not left:
        raise hubedit.MethodError(
            f"no forget text has more than {count} scored tokens; set a smaller skip_first"
        )
    for some in _drawn(left, drawing):
        yield [(example,) for example in some]


STREAMS: Mapping[str, Callable[[Drawing], Iterator[list[Item]]]] = {
    "forget": _part("forget"),
    "retain": _part("retain"),
    "normal": _part("normal"),
    "later tokens": _later_tokens,
    "random answers": _random_answers,
    "refused and retain": _refused_and_retain,
    "refusal over answer": _refusal_over_answer,
}
"""By the name that terms of a loss give."""


def refused(
    model: hubedit.EditableModel, parts: Parts, config: TrainingConfig
) -> list[tuple[list[Example], Example]]:
    """Each forget question with every refusal it may get, and with its answer.

    Raises:
        MethodError: a forget row asks no question, or is too long.
    """
    found = []
    forget = [row for row in parts.rows if row.part == "forget"]
    for number, row in enumerate(forget, start=1):
        own = row.refusals if isinstance(row, hubedit.ForgetQA) else ()
        said = [answer_of(row) or "", *(own or REFUSALS)]
        if answer_of(row) is None:
            raise hubedit.MethodError(
                f"forget row {number} asks no question, which this method answers otherwise; give "
                "questions with answers, or texts with a prompt and a target"
            )
        made = [answered(model, row, text, parts.longest, config.end_of_text) for text in said]
        examples = [example for example in made if example is not None]
        if len(examples) != len(said):
            raise hubedit.MethodError(
                f"forget row {number} has more than {parts.longest} tokens with an answer or a "
                "refusal; set max_tokens higher if the model can read more, or shorten it"
            )
        found.append((examples[1:], examples[0]))
    return found


def _drawn(values: Sequence[T], drawing: Drawing) -> Iterator[list[T]]:
    """Values in shuffled rounds, as many at a time as a step takes."""
    order = turns(len(values), drawing.generator)
    size = min(drawing.size, len(values))
    while True:
        yield [values[index] for index in islice(order, size)]


def _one(values: Sequence[T], generator: torch.Generator) -> T:
    return values[int(torch.randint(len(values), (1,), generator=generator))]


def turns(count: int, generator: torch.Generator) -> Iterator[int]:
    """Indices below `count` without end, each once in a shuffled round before the next round."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()
