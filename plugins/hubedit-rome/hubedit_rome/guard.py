"""What stops an edit that would break the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

import hubedit
from hubedit_rome.prefixes import positions

CANARY_LENGTH = 128
"""Tokens read of each text, at most."""

EVERY = 7
"""Of so many tokens a masked model is asked for one."""

ANSWERED = 4
"""Tokens of the answer to each text of a model that reads and writes."""

AT_ONCE = 8
"""Texts in one pass."""

_Asked = tuple[hubedit.Reading, Sequence[int]]
"""What is read, and the right tokens at its places."""


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

    A causal model is asked for each token from those before it, a masked one for every seventh
    token of a text, and one that reads and writes for what it answered to the text at the start.
    Texts that name a subject of the run are left out: those are meant to change.
    """

    def __init__(
        self, model: hubedit.EditableModel, texts: Sequence[str], rows: Sequence[hubedit.FactEdit]
    ) -> None:
        subjects = [row.subject for row in rows]
        self.texts = [text for text in texts if not any(subject in text for subject in subjects)]
        ask = {"causal": _going_on, "masked": _filling, "seq2seq": _answering}
        asked = ask[model.layout.architecture](model, self.texts)
        self.asked = sorted(asked, key=lambda one: len(one[0].ids))
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
        for some in _parts(self.asked):
            logits = model.model(**model.inputs([reading for reading, _ in some])).logits
            for own, (reading, answer) in zip(logits, some, strict=True):
                said = own[list(reading.places)].float()
                right = torch.tensor(answer, device=said.device)
                total += float(torch.nn.functional.cross_entropy(said, right, reduction="sum"))
                count += len(answer)
        return total / count if count else None


def _read(model: hubedit.EditableModel, text: str) -> list[int]:
    """The first tokens of a text."""
    longest = min(CANARY_LENGTH, positions(model))
    return list(model.tokenizer(text, truncation=True, max_length=longest)["input_ids"])


def _parts(asked: Sequence[_Asked]) -> Iterator[Sequence[_Asked]]:
    for start in range(0, len(asked), AT_ONCE):
        yield asked[start : start + AT_ONCE]


def _going_on(model: hubedit.EditableModel, texts: Sequence[str]) -> list[_Asked]:
    rows = [_read(model, text) for text in texts]
    return [(hubedit.Reading(ids, range(len(ids) - 1)), ids[1:]) for ids in rows if len(ids) > 1]


def _filling(model: hubedit.EditableModel, texts: Sequence[str]) -> list[_Asked]:
    special, mask = set(model.tokenizer.all_special_ids), model.tokenizer.mask_token_id
    found: list[_Asked] = []
    for ids in (_read(model, text) for text in texts):
        places = [at for at, one in enumerate(ids) if one not in special][EVERY // 2 :: EVERY]
        hidden = [mask if at in places else one for at, one in enumerate(ids)]
        if places:
            found.append((hubedit.Reading(hidden, places), [ids[at] for at in places]))
    return found


@torch.no_grad()
def _answering(model: hubedit.EditableModel, texts: Sequence[str]) -> list[_Asked]:
    start = model.next_reading("a")
    begun = len(start.written)
    rows = sorted((_read(model, text) for text in texts), key=len)
    found: list[_Asked] = []
    for some in _parts([(replace(start, ids=ids), ()) for ids in rows]):
        readings = [reading for reading, _ in some]
        for _ in range(ANSWERED):
            best = model.model(**model.inputs(readings)).logits[:, -1].argmax(-1).tolist()
            readings = [
                replace(reading, written=[*reading.written, token])
                for reading, token in zip(readings, best, strict=True)
            ]
        for reading in readings:
            said = list(reading.written)
            places = range(begun - 1, len(said) - 1)
            found.append((replace(reading, written=said[:-1], places=places), said[begun:]))
    return found


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
