"""Where the tokens of an answer are predicted, and where the neurons stand that are asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

import hubedit

Position = Literal["answer", "subject"]


@dataclass(frozen=True)
class Prompt:
    """A whole prompt, its answer, and the subject's characters [start, end) if it names it."""

    text: str
    answer: str
    subject: tuple[int, int] | None = None


@dataclass(frozen=True)
class Place:
    """One token of an answer: what is read for it, and where.

    `reading` holds the text with the answer up to that token; its only place is where the token is
    predicted. `neuron` is the position of the neurons that are asked about, `token` the token's id,
    and `share` its weight among the answer's tokens.
    """

    reading: hubedit.Reading
    neuron: int
    token: int
    share: float

    @property
    def at(self) -> int:
        """The position of the logits that predict the token."""
        return self.reading.places[0]


def places(model: hubedit.EditableModel, prompt: Prompt, position: Position) -> list[Place]:
    """The places of an answer's tokens, each predicted from what stands before it.

    A masked model fills all its masks at once; in the others a token is given those before it.

    Raises:
        RequestError: the answer has no tokens of its own, or the prompt does not name the subject.
    """
    text = prompt.answer.strip()
    answer = text if prompt.text[-1:].isspace() else f" {text}"
    reading, target = model.scored(prompt.text, answer, _wanted(prompt, position))
    causal = model.layout.architecture == "causal"
    found = []
    for at, token in zip(reading.places, target, strict=True):
        ids = reading.ids[: at + 1] if causal else reading.ids
        one = hubedit.Reading(ids, (at,), reading.written[: at + 1], reading.subject)
        found.append(_place(one, token, 1 / len(target)))
    return found


def likeliest(model: hubedit.EditableModel, prompt: Prompt, position: Position) -> list[Place]:
    """The place of the first token of what the model itself would answer; see `places`."""
    reading = model.next_reading(prompt.text, _wanted(prompt, position))
    with torch.no_grad():
        logits = model.model(**model.inputs([reading])).logits
    return [_place(reading, int(logits[0, reading.places[0]].argmax()), 1.0)]


def _place(reading: hubedit.Reading, token: int, share: float) -> Place:
    neuron = reading.places[0] if reading.subject is None else reading.subject
    return Place(reading, neuron, token, share)


def _wanted(prompt: Prompt, position: Position) -> tuple[int, int] | None:
    """The subject's characters if its place is asked about."""
    if position == "answer":
        return None
    if prompt.subject is None:
        raise hubedit.RequestError(
            "a prompt does not name the subject; leave it out, or set position=answer"
        )
    return prompt.subject
