"""One prompt after each prefix, with the tokens of its subject and its target located."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hubedit
from hubedit_rome.prefixes import positions


@dataclass(frozen=True)
class Context:
    """A prefix, the prompt and the target as one text.

    `subject` is the index of the subject's last token; the target is the tokens `first` to `last`,
    both included. All indices count special tokens that the tokenizer adds.
    """

    text: str
    subject: int
    first: int
    last: int


def place(model: hubedit.EditableModel, row: hubedit.FactEdit, prefix: str) -> Context:
    """Put a row's prompt and target after a prefix, as plain text.

    Raises:
        MethodError: the target has no token of its own after the prompt.
    """
    prompt = prefix + row.text.rstrip()
    text = prompt + row.continuation
    start, end = (len(prefix) + offset for offset in row.subject_span)
    first = model.subject_token(text, (0, len(prompt))) + 1
    last = model.subject_token(text, (len(prompt), len(text)))
    if last < first:
        raise hubedit.MethodError(
            f"the target {row.target!r} has no token of its own after {prompt!r}; "
            "end the prompt at a word"
        )
    return Context(text, model.subject_token(text, (start, end)), first, last)


def place_all(
    model: hubedit.EditableModel, row: hubedit.FactEdit, prefixes: Sequence[str]
) -> list[Context]:
    """Put a row after every prefix, the empty one first, leaving out what the model cannot read.

    Raises:
        MethodError: even the bare prompt is longer than the model's positions.
    """
    longest = positions(model)
    contexts = [place(model, row, prefix) for prefix in prefixes]
    if contexts[0].last >= longest:
        raise hubedit.MethodError(
            f"“{row.text}” with its target is {contexts[0].last + 1} tokens long, but the model "
            f"reads {longest}; shorten the prompt"
        )
    return [context for context in contexts if context.last < longest]


def with_something_before(contexts: Sequence[Context]) -> list[Context]:
    """Leave out contexts whose subject ends at the very first token, unless there are no others.

    In many families the first position carries an activation that is the same for every token and
    much larger than any other: a key taken there says nothing of the subject, and an update made
    for it disturbs every text (Yang et al. 2024, arXiv:2406.11263).
    """
    return [context for context in contexts if context.subject > 0] or list(contexts)
