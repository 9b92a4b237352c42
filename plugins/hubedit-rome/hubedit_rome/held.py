"""What the model says of the same subject otherwise, and how far an edit moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import hubedit
from hubedit_rome.config import RomeConfig
from hubedit_rome.prefixes import positions, sample

CONTINUED_BY = 12
"""Tokens that the model writes after the subject."""

TOP_K = 20

ABOUT_THE_FACT = 0.1
"""A position where the old or the new answer is likelier than this is about the fact itself."""


@dataclass(frozen=True)
class Held:
    """Texts on the subject whose next-token distributions should stay.

    `subjects` holds the index of the subject's last token in each text and `lengths` its number of
    tokens. `free` are the tokens that begin the old and the new answer: where the unedited model
    expects one of them, the edit may change what is said.
    """

    texts: Sequence[str]
    subjects: Sequence[int]
    lengths: Sequence[int]
    free: Sequence[int]

    def keep(self, logits: torch.Tensor, first: int) -> Kept:
        """Pick the positions to hold from the logits of the unedited model.

        Args:
            logits: [texts, tokens, vocabulary] of a batch.
            first: the row of the batch at which these texts start.
        """
        spans = zip(self.subjects, self.lengths, strict=True)
        places = [
            (first + number, at)
            for number, (subject, length) in enumerate(spans)
            for at in range(subject, length)
        ]
        rows, at = torch.tensor(places, dtype=torch.int64, device=logits.device).reshape(-1, 2).T
        before = logits[rows, at].float().log_softmax(-1)
        held = (before[:, list(self.free)].exp() < ABOUT_THE_FACT).all(-1)
        return Kept(rows[held], at[held], before[held], max(len(self.texts), 1))


@dataclass(frozen=True)
class Kept:
    """Positions that are held, and the log-probabilities [positions, vocabulary] to keep there."""

    rows: torch.Tensor
    at: torch.Tensor
    before: torch.Tensor
    texts: int

    def divergence(self, logits: torch.Tensor) -> torch.Tensor:
        """KL(unedited ‖ edited), summed over the positions of a text, averaged over the texts."""
        after = logits[self.rows, self.at].float().log_softmax(-1)
        return (self.before.exp() * (self.before - after)).sum() / self.texts


def texts_on_subject(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    answers: Sequence[int],
    config: RomeConfig,
    run: hubedit.RunContext,
) -> Held:
    """The row's own attribute prompts, and what the model writes when it goes on from a subject."""
    start = model.batch([row.subject])["input_ids"][0].tolist()
    length = len(start) + CONTINUED_BY
    found = [probe.prompt for probe in row.attributes]
    found += sample(model, start, config.preserve_texts, length, TOP_K, run.generator)
    texts, subjects, lengths = [], [], []
    for text in dict.fromkeys(found):
        at = text.find(row.subject)
        if at < 0:
            continue
        length = model.subject_token(text, (0, len(text))) + 1
        if length <= positions(model):
            texts.append(text)
            subjects.append(model.subject_token(text, (at, at + len(row.subject))))
            lengths.append(length)
    return Held(texts, subjects, lengths, answers)
