"""What the model says of the same subject otherwise, and how far an edit moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hubedit
import torch

from hubedit_rome.config import RomeConfig
from hubedit_rome.prefixes import positions, sample

CONTINUED_BY = 12
"""Tokens that the model writes after the subject."""

TOP_K = 20

ABOUT_THE_FACT = 0.1
"""A position where the old or new answer is likelier than this is about the fact itself."""


@dataclass(frozen=True)
class Held:
    """Texts on the subject whose next-token distributions should stay.

    `subjects` holds the index of the subject's last token in each; `lengths` the tokens of each
    text; `free` the tokens that begin the old and the new answer: where the unedited model expects
    one of them, the edit is free to change what is said.
    """

    texts: list[str]
    subjects: list[int]
    lengths: list[int]
    free: Sequence[int]

    def measure(self, logits: torch.Tensor, skip: int) -> tuple[torch.Tensor, ...]:
        """Positions to hold and the unedited log-probabilities there.

        Args:
            logits: of a batch [texts, tokens, vocabulary] whose rows from `skip` on are these texts.
        """
        rows, at = [], []
        for number, (subject, length) in enumerate(zip(self.subjects, self.lengths, strict=True)):
            for position in range(subject, length):
                rows.append(skip + number)
                at.append(position)
        row, position = torch.tensor(rows), torch.tensor(at)
        before = logits[row, position].float().log_softmax(-1)
        held = (before[:, list(self.free)].exp() < ABOUT_THE_FACT).all(-1)
        return row[held.cpu()], position[held.cpu()], before[held]

    def divergence(
        self, logits: torch.Tensor, skip: int, kept: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """KL(unedited ‖ edited), summed over each text and averaged over the texts."""
        rows, at, before = kept
        after = logits[rows, at].float().log_softmax(-1)
        return (before.exp() * (before - after)).sum() / max(len(self.texts), 1)


def texts_on_subject(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    answers: Sequence[int],
    config: RomeConfig,
    generator: torch.Generator,
) -> Held:
    """The row's own attribute prompts, and continuations of the subject that the model writes."""
    tokens = list(model.batch([row.subject])["input_ids"][0].tolist())
    length = len(tokens) + CONTINUED_BY
    written = sample(model, tokens, config.preserve_texts, length, TOP_K, generator)
    texts, subjects, lengths = [], [], []
    for text in [probe.prompt for probe in row.attributes] + sorted(set(written)):
        start = text.find(row.subject)
        if start < 0:
            continue
        end = model.subject_token(text, (0, len(text))) + 1
        if end <= positions(model):
            texts.append(text)
            subjects.append(model.subject_token(text, (start, start + len(row.subject))))
            lengths.append(end)
    return Held(texts, subjects, lengths, answers)
