"""A request as examples, part by part, and what a method must find in it; needs torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import hubedit
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.texts import Example, answer_span, examples_of, question_of

WORDS = {
    "normal": "add rows with part=normal (or retain): texts on other matters that shall stay known",
    "forget": "add rows with part=forget and a text of two tokens or more",
    "retain": "add rows with part=retain: texts like those to forget that shall stay known",
}


@dataclass(frozen=True)
class Parts:
    """A request as examples: what to forget, what to retain, and what retention is judged by.

    `normal` are the rows of that part, or those to retain where it is empty. `judged` are the
    answers of the retain (else normal) rows that name some, else all their tokens: the loss of
    plain text can fall, as its names are learnt by heart, while the answers in it are lost.
    `asked` are the forget rows that ask a question.
    """

    forget: list[Example]
    retain: list[Example]
    judged: list[Example]
    normal: list[Example] = field(default_factory=list)
    asked: list[hubedit.ForgetRow] = field(default_factory=list)
    rows: Sequence[hubedit.ForgetRow] = ()
    longest: int = 0


def read_parts(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.ForgetRow],
    config: TrainingConfig,
    needed: Collection[str] = ("forget", "retain"),
) -> Parts:
    """Read a request.

    Args:
        needed: parts that the method cannot do without.

    Raises:
        MethodError: one of them is missing or says nothing, some rows to forget say nothing, or
            the parts share texts.
    """
    positions = model.layout.positions(model.model.config)
    longest = min(config.max_tokens, positions or config.max_tokens)
    part = {
        name: [row for row in rows if row.part == name] for name in ("forget", "retain", "normal")
    }
    both = {row.content.strip() for row in part["forget"]} & {
        row.content.strip() for row in part["retain"]
    }
    if both:
        raise hubedit.MethodError(
            f"the request both forgets and retains the same text, {len(both)} times; leave each "
            "text in one part"
        )
    held = part["retain"] or part["normal"]
    named = [row for row in held if answer_span(row)]
    ended = config.end_of_text
    forget = [examples_of(model, [row], config.labels, longest, ended) for row in part["forget"]]
    mute = [str(number) for number, examples in enumerate(forget, start=1) if not examples]
    if mute and len(mute) < len(forget):
        raise hubedit.MethodError(
            f"of the {len(forget)} rows to forget, number {', '.join(mute)} has no token that "
            "could be unlearnt: a text needs two tokens or more; lengthen these rows, or leave "
            "them out"
        )
    found = {
        "forget": [example for examples in forget for example in examples],
        "retain": examples_of(model, part["retain"], config.retain_labels, longest, ended),
        "normal": examples_of(model, part["normal"] or part["retain"], "text", longest, ended),
    }
    for name in needed:
        if not found[name]:
            raise hubedit.MethodError(
                f"there is nothing to {name} in {len(part[name])} rows of part {name}; "
                f"{WORDS[name]}"
            )
    return Parts(
        **found,
        judged=examples_of(model, named or held, "answer", longest, ended),
        asked=[row for row in part["forget"] if question_of(row) is not None],
        rows=rows,
        longest=longest,
    )
