"""The rows as batches of texts, and the loss of their targets; needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from hubedit_rome.batches import Asked, Batch
from hubedit_rome.contexts import Context, place

import hubedit


@dataclass(frozen=True)
class Part:
    """Some rows, read together, and where the tokens of their targets are asked for."""

    read: Batch
    asked: Asked

    def losses(self, model: hubedit.EditableModel) -> torch.Tensor:
        """The mean negative log-likelihood of each row's target tokens, in nats [rows]."""
        logits = self.read.logits(model, self.asked.text, self.asked.at)
        return self.asked.losses(logits, len(self.read.lookup))


def placed(model: hubedit.EditableModel, rows: Sequence[hubedit.FactEdit]) -> list[Context]:
    """Every row's prompt and target as one text, its tokens located.

    Raises:
        RequestError: a target has no token of its own, or a row is longer than the model reads.
    """
    return [place(model, row, "") for row in rows]


def batches(
    model: hubedit.EditableModel, contexts: Sequence[Context], size: int, at_end: bool
) -> list[Part]:
    """The rows in their order, `size` at a time.

    Args:
        at_end: ask for all tokens of a target where its first one is asked for, and not each after
            those before it; a masked model has a place for each in any case.
    """
    if at_end and model.layout.architecture != "masked":
        contexts = [_at_first(context) for context in contexts]
    parts = [contexts[start : start + size] for start in range(0, len(contexts), size)]
    return [
        Part(Batch.of(model, [context.reading for context in part]), Asked.of(part, model.device))
        for part in parts
    ]


def _at_first(context: Context) -> Context:
    places = [context.reading.places[0]] * len(context.target)
    return replace(context, reading=replace(context.reading, places=places))
