"""Rows as token ids and labels, and batches of them; needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

import hubedit
from hubedit_unlearn.config import TrainingConfig

IGNORED = -100
"""The label of a token that is not scored."""


@dataclass(frozen=True)
class Example:
    """One text or a piece of one: `ids` and `labels`, as many of each.

    A label is the token's own id, or `IGNORED`; the first token is never predicted.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def labelled(self) -> int:
        """Number of tokens that are scored."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right, int64 [rows, length]; `labels` are `IGNORED` at padding.

    `mask` is 1 at tokens and built from lengths: padding may share its id with a real token.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Parts:
    """A request as examples: what to forget, what to retain, and what retention is judged by.

    `judged` are the answers of the retain rows that name some, else all retained tokens: the loss
    of plain text can fall, as its names are learnt by heart, while the answers in it are lost.
    """

    forget: list[Example]
    retain: list[Example]
    judged: list[Example]


def read_parts(
    model: hubedit.EditableModel, rows: Sequence[hubedit.ForgetText], config: TrainingConfig
) -> Parts:
    """Read a request.

    Raises:
        MethodError: one part is missing or says nothing, or the parts share texts.
    """
    positions = getattr(model.model.config, "max_position_embeddings", None)
    longest = min(config.max_tokens, positions or config.max_tokens)
    forget, retain = ([row for row in rows if row.part == part] for part in ("forget", "retain"))
    both = {row.text.strip() for row in forget} & {row.text.strip() for row in retain}
    if both:
        raise hubedit.MethodError(
            f"the request both forgets and retains the same text, {len(both)} times; leave each "
            "text in one part"
        )
    named = [row for row in retain if answer_span(row)]
    parts = Parts(
        examples_of(model, forget, config.labels, longest),
        examples_of(model, retain, config.retain_labels, longest),
        examples_of(model, named or retain, "answer", longest),
    )
    if not parts.forget:
        raise hubedit.MethodError(
            f"there is nothing to forget in {len(forget)} rows of part forget; add rows with "
            "part=forget and a text of two tokens or more"
        )
    if not parts.retain:
        raise hubedit.MethodError(
            f"there is nothing to retain in {len(retain)} rows of part retain; add rows with "
            "part=retain: texts like those to forget that shall stay known"
        )
    return parts


def examples_of(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.ForgetText],
    labels: str,
    longest: int,
) -> list[Example]:
    """Tokenise rows; pieces without a token to score are left out.

    Args:
        labels: `answer` scores the target alone where the row names one that follows its prompt in
            the text; `text` scores every token.
        longest: texts of more tokens are cut; each piece begins with the last token of the one
            before it, so that every token is predicted once.
    """
    found = []
    for row in rows:
        ids, offsets = _tokens(model, row.text)
        span = answer_span(row) if labels == "answer" else None
        scored = [
            token if span is None or (first < span[1] and last > span[0]) else IGNORED
            for token, (first, last) in zip(ids, offsets, strict=True)
        ]
        for start in range(0, max(len(ids) - 1, 1), longest - 1):
            end = start + longest
            piece = Example(tuple(ids[start:end]), tuple(scored[start:end]))
            if piece.labelled:
                found.append(piece)
    return found


def answer_span(row: hubedit.ForgetText) -> tuple[int, int] | None:
    """Characters [start, end) of the row's target in its text, right after the prompt.

    None if the row names no target, or the text does not hold it there.
    """
    if row.prompt is None or row.target is None:
        return None
    prompt, target = row.prompt.rstrip(), row.target.strip()
    at = row.text.find(prompt)
    if at < 0:
        return None
    after = at + len(prompt)
    start = row.text.find(target, after)
    if start < 0 or row.text[after:start].strip():
        return None
    return start, start + len(target)


def batch_of(examples: Sequence[Example], padding: int, device: torch.device) -> Batch:
    """Put examples into one batch on a device."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), padding)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        mask[row, :length] = 1
        labels[row, :length] = torch.tensor(example.labels)
    return Batch(ids.to(device), mask.to(device), labels.to(device))


def padding_of(model: hubedit.EditableModel) -> int:
    """An id to pad with; which one does not matter, since no token looks ahead."""
    padding = model.tokenizer.pad_token_id
    return int(padding) if isinstance(padding, int) else 0


def turns(count: int, generator: torch.Generator) -> Iterator[int]:
    """Indices below `count` without end, each once in a shuffled round before the next round."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _tokens(model: hubedit.EditableModel, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and character spans; special tokens are kept in front and left off behind."""
    coded = model.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids = [int(token) for token in coded["input_ids"]]
    offsets = [(int(first), int(last)) for first, last in coded["offset_mapping"]]
    special = set(model.tokenizer.all_special_ids)
    while ids and ids[-1] in special and offsets[-1] == (0, 0):
        ids.pop()
        offsets.pop()
    return ids, offsets
