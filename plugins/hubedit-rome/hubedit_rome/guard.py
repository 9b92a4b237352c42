"""What stops an edit that would break the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

import hubedit
from hubedit_rome.prefixes import positions
from hubedit_rome.site import forward

CANARY_LENGTH = 128
"""Tokens read of each text, at most."""


def stop(run: hubedit.RunContext, reason: str) -> None:
    """Stop the edit, or note that the user insists on it.

    Raises:
        CollapseError: unless `run.force` is set.
    """
    if not run.force:
        raise hubedit.CollapseError(reason)
    run.overridden(reason)


class Canary:
    """Fixed texts whose perplexity tells whether the model as a whole still works.

    Texts that name a subject of the run are left out: those are meant to change.
    """

    def __init__(
        self, model: hubedit.EditableModel, texts: Sequence[str], rows: Sequence[hubedit.FactEdit]
    ) -> None:
        subjects = [row.subject for row in rows]
        self.texts = [text for text in texts if not any(subject in text for subject in subjects)]
        self.before = self._loss(model)

    def ratio(self, model: hubedit.EditableModel) -> float | None:
        """Perplexity now over perplexity at the start, or None without texts to read."""
        after = self._loss(model)
        if after is None or self.before is None:
            return None
        growth = after - self.before
        return math.exp(min(growth, 700.0)) if math.isfinite(growth) else math.inf

    @torch.no_grad()
    def _loss(self, model: hubedit.EditableModel) -> float | None:
        total, count = 0.0, 0
        longest = min(CANARY_LENGTH, positions(model))
        for text in self.texts:
            inputs = {name: rows[:, :longest] for name, rows in model.batch([text]).items()}
            ids = inputs["input_ids"].to(model.device)
            if ids.shape[1] < 2:
                continue
            logits = forward(model, inputs)[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            count += ids.shape[1] - 1
        return total / count if count else None


@contextmanager
def trial(weight: torch.Tensor, update: torch.Tensor) -> Iterator[None]:
    """Add an update to a weight while the `with` lasts, then put the same bits back."""
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(update.to(weight.dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)
