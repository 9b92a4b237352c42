"""What the model says of the same subject otherwise, and how far an edit moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

import hubedit
from hubedit_rome.config import RomeConfig
from hubedit_rome.contexts import subject_of
from hubedit_rome.prefixes import sample

CONTINUED_BY = 12
"""Tokens that the model writes after the subject."""

TOP_K = 20

ABOUT_THE_FACT = 0.1
"""A position where the old or the new answer is likelier than this is about the fact itself."""


@dataclass(frozen=True)
class Held:
    """Readings on the subject whose answers should stay, at each of their places.

    `free` are the tokens that begin the old and the new answer: where the unedited model expects
    one of them, the edit may change what is said.
    """

    readings: Sequence[hubedit.Reading]
    free: Sequence[int]

    def places(self, first: int) -> torch.Tensor:
        """The number of the reading and the position of every place, int64 [2, places].

        Args:
            first: the number in the batch of the first of these readings.
        """
        found = [
            (number, at)
            for number, reading in enumerate(self.readings, first)
            for at in reading.places
        ]
        return torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T

    def about_something_else(self, before: torch.Tensor) -> torch.Tensor:
        """Which places are not about the fact itself, bool [places].

        Args:
            before: the unedited model's log-probabilities there [places, vocabulary].
        """
        return (before[:, list(self.free)].exp() < ABOUT_THE_FACT).all(-1)


def texts_on_subject(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    answers: Sequence[int],
    config: RomeConfig,
    run: hubedit.RunContext,
) -> Held:
    """The row's own attribute prompts, and what a causal model writes when it goes on from there.

    A causal model is held at every position from the subject on, others where they would answer.

    Raises:
        ConfigError: the model writes nothing by itself, and the row names no attributes.
    """
    found = [probe.prompt for probe in row.attributes]
    causal = model.layout.architecture == "causal"
    if causal:
        start = list(model.next_reading(row.subject).ids)
        length = len(start) + CONTINUED_BY
        found += sample(model, start, config.preserve_texts, length, TOP_K, run.generator)
    elif not any(row.subject in text for text in found):
        raise hubedit.ConfigError(
            f"preserve=attributes holds what a {model.layout.architecture} model says to prompts "
            f"that the row names; give “{row.text}” attributes, or set preserve=none"
        )
    readings = []
    for text in dict.fromkeys(found):
        at = text.find(row.subject)
        if at < 0:
            continue
        try:
            reading = model.next_reading(text, (at, at + len(row.subject)))
        except hubedit.RequestError:
            continue
        if causal:
            reading = replace(reading, places=range(subject_of(reading), len(reading.ids)))
        readings.append(reading)
    return Held(readings, answers)
