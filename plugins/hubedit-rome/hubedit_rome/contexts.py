"""One prompt after each prefix, as the model reads it, with its subject and its target located."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import hubedit

ESSENCE = {"causal": "{} is a", "masked": "{} is a [MASK].", "seq2seq": "{} is a"}
"""What is asked to see whether the subject is still what it was, by architecture."""


@dataclass(frozen=True)
class Context:
    """A prompt after a prefix, and the target's tokens, one for each place of the reading."""

    reading: hubedit.Reading
    target: Sequence[int]

    @property
    def subject(self) -> int:
        """Index of the subject's last token in what is read."""
        return subject_of(self.reading)


def subject_of(reading: hubedit.Reading) -> int:
    """Index of the subject's last token, in a reading that was made with a subject."""
    assert reading.subject is not None
    return reading.subject


def place(model: hubedit.EditableModel, row: hubedit.FactEdit, prefix: str) -> Context:
    """Put a row's prompt and target after a prefix, as plain text.

    Raises:
        RequestError: the target has no token of its own, or the model cannot read so much.
    """
    start, end = (len(prefix) + offset for offset in row.subject_span)
    return Context(*model.scored(prefix + row.text, row.continuation, (start, end)))


def place_all(
    model: hubedit.EditableModel, row: hubedit.FactEdit, prefixes: Sequence[str]
) -> list[Context]:
    """Put a row after every prefix, the empty one first, leaving out what the model cannot read.

    Raises:
        RequestError: the model cannot read even the bare prompt with its target.
    """
    contexts = [place(model, row, prefixes[0])]
    for prefix in prefixes[1:]:
        try:
            contexts.append(place(model, row, prefix))
        except hubedit.RequestError:
            continue
    return contexts


def essence_of(
    model: hubedit.EditableModel, subject: str, at_subject: bool = True
) -> hubedit.Reading:
    """What asks what a subject is.

    A causal model is asked at the subject's last token (as in the published code), or at the last
    token of all (as in the paper's text); others where they would answer.
    """
    text = ESSENCE[model.layout.architecture].replace("{}", subject)
    reading = model.next_reading(text, (0, len(subject)))
    if at_subject and model.layout.architecture == "causal":
        return replace(reading, places=[subject_of(reading)])
    return reading


def with_something_before(contexts: Sequence[Context]) -> list[Context]:
    """Leave out contexts whose subject ends at the very first token, unless there are no others.

    In many families the first position carries an activation that is the same for every token and
    much larger than any other: a key taken there says nothing of the subject, and an update made
    for it disturbs every text (Yang et al. 2024, arXiv:2406.11263).
    """
    return [context for context in contexts if context.subject > 0] or list(contexts)
