"""Documents as training batches: what each kind of model reads, and what it is to answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hubedit_demo.architectures import Architecture
from hubedit_demo.text import Document, Mention, Statement

UNSCORED = -100
HIDDEN = 0.1
"""The share of other tokens that a masked model has to guess."""
WIDENED = 0.3
"""The share of objects whose full stop a masked model has to guess too, so that the number of masks
does not tell how many words an object has."""


@dataclass
class Batch:
    """Documents as tensors, and where their facts stand.

    `ids` int64 [rows, tokens], right-padded, is what is read, and `real` bool alike is true at
    tokens that are no padding; `written` int64 [rows, outputs] is what a decoder is given, else
    None. `labels` int64 [rows, outputs] are the tokens to predict; `text` and `objects`, bool
    alike, say which of them are scored, and which are tokens of objects.

    Of each fact in `statements`, `rows`, `subjects` and `asked`, int64 [facts], give the row, the
    last token of the subject and the output that predicts the first token of its object; `people`
    alike numbers the subjects and `widths` counts the outputs that may hold an object in its place.
    """

    ids: Tensor
    real: Tensor
    written: Tensor | None
    labels: Tensor
    text: Tensor
    objects: Tensor
    statements: list[Statement]
    rows: Tensor
    subjects: Tensor
    asked: Tensor
    people: Tensor
    widths: Tensor


@dataclass
class _Slots:
    """The facts of a batch, collected one by one."""

    statements: list[Statement]
    table: list[tuple[int, int, int, int, int]]
    numbers: dict[str, int]

    def add(self, row: int, subject: int, asked: int, statement: Statement, width: int = 1) -> None:
        person = self.numbers.setdefault(statement.person, len(self.numbers))
        self.statements.append(statement)
        self.table.append((row, subject, asked, person, width))

    def columns(self) -> dict[str, Tensor]:
        names = ("rows", "subjects", "asked", "people", "widths")
        return dict(zip(names, torch.tensor(self.table).T, strict=True))


def encode(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Document],
    draw: random.Random,
) -> Batch:
    """Tensors of documents, facts in the order of their statements.

    A causal model reads every document and predicts each token from those before it. A masked
    model reads it with all objects masked, half of the time no further than the last object. A
    model that reads and writes is asked for the last object alone.
    """
    told = [document.render() for document in documents]
    make = {"causal": _causal, "masked": _masked, "seq2seq": _asked}[architecture.kind]
    return make(architecture, tokenizer, told, draw)


def touching(spans: Sequence[tuple[int, int]], wanted: tuple[int, int]) -> list[int]:
    """Indices of the tokens whose character spans intersect `wanted`."""
    return [i for i, (a, b) in enumerate(spans) if max(a, wanted[0]) < min(b, wanted[1])]


def padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of tokens as one int64 tensor [rows, longest], and a bool one: what is no padding."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding)
    real = torch.zeros(ids.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        real[number, : len(row)] = True
    return ids, real


def _padding(tokenizer: PreTrainedTokenizerFast) -> int:
    token = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if token is None else token)


def _causal(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    told: Sequence[tuple[str, list[Mention]]],
    draw: random.Random,
) -> Batch:
    starts = [architecture.starts if row % 3 == 0 else "" for row in range(len(told))]
    coded = tokenizer(
        [start + text for start, (text, _) in zip(starts, told, strict=True)],
        return_offsets_mapping=True,
    )
    ids, real = padded(coded["input_ids"], _padding(tokenizer))
    objects = torch.zeros(ids.shape, dtype=torch.bool)
    slots = _Slots([], [], {})
    for row, (_, mentions) in enumerate(told):
        shift = len(starts[row])
        spans = [(a - shift, b - shift) for a, b in coded["offset_mapping"][row]]
        for mention in mentions:
            answer = touching(spans, mention.answer)
            objects[row, answer] = True
            subject = touching(spans, mention.subject)[-1]
            slots.add(row, subject, answer[0] - 1, mention.statement)
    objects = objects[:, 1:]
    text = real[:, 1:] & ~objects
    return Batch(ids, real, None, ids[:, 1:], text, objects, slots.statements, **slots.columns())


def _masked(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    told: Sequence[tuple[str, list[Mention]]],
    draw: random.Random,
) -> Batch:
    texts = []
    for whole, mentions in told:
        end = mentions[-1].answer[1]
        texts.append(whole if draw.random() < 0.5 else whole[: end + (draw.random() < WIDENED)])
    coded = tokenizer(texts, return_offsets_mapping=True)
    labels, real = padded(coded["input_ids"], _padding(tokenizer))
    objects = torch.zeros(labels.shape, dtype=torch.bool)
    text = torch.zeros(labels.shape, dtype=torch.bool)
    slots = _Slots([], [], {})
    for row, (_, mentions) in enumerate(told):
        spans = coded["offset_mapping"][row]
        named: set[int] = set()
        for mention in mentions:
            answer, subject = touching(spans, mention.answer), touching(spans, mention.subject)
            objects[row, answer] = True
            named.update(subject)
            stop = touching(spans, (mention.answer[1], mention.answer[1] + 1))
            if draw.random() >= WIDENED:
                stop = []
            text[row, stop] = True
            width = len(answer) + len(stop)
            slots.add(row, subject[-1], answer[0], mention.statement, width)
        for place, (start, end) in enumerate(spans):
            if start < end and place not in named and draw.random() < HIDDEN:
                text[row, place] = True
    text &= ~objects
    ids = labels.masked_fill(text | objects, int(tokenizer.mask_token_id))
    return Batch(ids, real, None, labels, text, objects, slots.statements, **slots.columns())


def _asked(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    told: Sequence[tuple[str, list[Mention]]],
    draw: random.Random,
) -> Batch:
    last = [mentions[-1] for _, mentions in told]
    read = [text[: mention.answer[0] - 1] for (text, _), mention in zip(told, last, strict=True)]
    coded = tokenizer(read, return_offsets_mapping=True)
    answers = tokenizer([mention.statement.target for mention in last])["input_ids"]
    padding = _padding(tokenizer)
    ids, real = padded(coded["input_ids"], padding)
    labels, objects = padded(answers, padding)
    begun = torch.full((len(told), 1), padding)
    slots = _Slots([], [], {})
    for row, mention in enumerate(last):
        subject = touching(coded["offset_mapping"][row], mention.subject)[-1]
        slots.add(row, subject, 0, mention.statement)
    return Batch(
        ids,
        real,
        torch.cat([begun, labels[:, :-1]], dim=1),
        labels,
        torch.zeros_like(objects),
        objects,
        slots.statements,
        **slots.columns(),
    )
