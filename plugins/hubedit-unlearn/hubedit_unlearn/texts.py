"""Rows as token ids and labels, and batches of them; needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

import hubedit

IGNORED = -100
"""The label of a token that is not scored."""

Labels = Literal["answer", "text"]


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

    def without_first(self, count: int) -> Example:
        """The example with the first `count` of its scored tokens not scored."""
        scored = [at for at, label in enumerate(self.labels) if at and label != IGNORED]
        dropped = set(scored[:count])
        labels = [IGNORED if at in dropped else label for at, label in enumerate(self.labels)]
        return Example(self.ids, tuple(labels))


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right, int64 [rows, length]; `labels` are `IGNORED` at padding.

    `mask` is 1 at tokens and built from lengths: padding may share its id with a real token.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def examples_of(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.ForgetRow],
    labels: Labels,
    longest: int,
    ended: bool = True,
) -> list[Example]:
    """Tokenise rows; pieces without a token to score are left out.

    Args:
        labels: `answer` scores the answer alone where the row has one that follows its prompt in
            the text; `text` scores every token.
        longest: texts of more tokens are cut; each piece begins with the last token of the one
            before it, so that every token is predicted once.
        ended: the end-of-text token follows the answer of a `ForgetQA` and is scored with it.
    """
    found = []
    for row in rows:
        span = answer_span(row) if labels == "answer" else None
        end = ended and isinstance(row, hubedit.ForgetQA)
        found += _pieces(model, row.content, span, longest, end)
    return found


def answered(
    model: hubedit.EditableModel,
    row: hubedit.ForgetRow,
    answer: str,
    longest: int,
    ended: bool = True,
) -> Example | None:
    """The row's question with another answer, of which the answer alone is scored.

    None if the row asks no question, or question and answer have more than `longest` tokens.
    """
    prompt = question_of(row)
    if prompt is None:
        return None
    text = hubedit.ForgetQA.model_validate({"question": prompt, "answer": answer}).content
    span = len(text) - len(answer.strip()), len(text)
    end = ended and isinstance(row, hubedit.ForgetQA)
    pieces = _pieces(model, text, span, longest + 1, end)
    if len(pieces) != 1 or len(pieces[0].ids) > longest:
        return None
    return pieces[0]


def question_of(row: hubedit.ForgetRow) -> str | None:
    """What a row asks, if it asks something."""
    if isinstance(row, hubedit.ForgetQA):
        return row.question
    return row.prompt if isinstance(row, hubedit.ForgetText) else None


def answer_of(row: hubedit.ForgetRow) -> str | None:
    """What a row answers to what it asks, if it asks something."""
    if isinstance(row, hubedit.ForgetQA):
        return row.answer
    return row.target if isinstance(row, hubedit.ForgetText) else None


def answer_span(row: hubedit.ForgetRow) -> tuple[int, int] | None:
    """Characters [start, end) of the row's answer in its text, right after the prompt.

    None if the row names no answer, or the text does not hold it there.
    """
    asked, answer = question_of(row), answer_of(row)
    if asked is None or answer is None:
        return None
    prompt, target, text = asked.rstrip(), answer.strip(), row.content
    at = text.find(prompt)
    if at < 0:
        return None
    after = at + len(prompt)
    start = text.find(target, after)
    if start < 0 or text[after:start].strip():
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


def _pieces(
    model: hubedit.EditableModel,
    text: str,
    span: tuple[int, int] | None,
    longest: int,
    ended: bool,
) -> list[Example]:
    """A text as one example or several of at most `longest` tokens; `span` alone is scored."""
    ids, offsets = _tokens(model, text)
    scored = [
        token if span is None or (first < span[1] and last > span[0]) else IGNORED
        for token, (first, last) in zip(ids, offsets, strict=True)
    ]
    end = model.tokenizer.eos_token_id
    if ended and isinstance(end, int):
        ids.append(end)
        scored.append(end)
    found = []
    for start in range(0, max(len(ids) - 1, 1), longest - 1):
        piece = Example(tuple(ids[start : start + longest]), tuple(scored[start : start + longest]))
        if piece.labelled:
            found.append(piece)
    return found


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
