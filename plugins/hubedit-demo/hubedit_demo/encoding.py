"""Documents as training batches: tensors, and where in them each fact stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hubedit_demo.architectures import Architecture
from hubedit_demo.text import Document, Statement


@dataclass
class Batch:
    """Documents as tensors, and where their facts stand.

    `ids` int64 [rows, tokens], right-padded, is what is read. `labels` int64 [rows, tokens − 1] are
    the tokens to predict; `objects` bool alike are those of objects, and `text` all others that are
    no padding.

    Of each fact in `statements`, `rows`, `subjects` and `asked`, int64 [facts], give the row, the
    last token of the subject and the token after which its object begins; `people` alike numbers
    the subjects.
    """

    ids: Tensor
    labels: Tensor
    text: Tensor
    objects: Tensor
    statements: list[Statement]
    rows: Tensor
    subjects: Tensor
    asked: Tensor
    people: Tensor


@dataclass
class _Slots:
    """The facts of a batch, collected one by one."""

    statements: list[Statement]
    table: list[tuple[int, int, int, int]]
    numbers: dict[str, int]

    def add(self, row: int, subject: int, asked: int, statement: Statement) -> None:
        person = self.numbers.setdefault(statement.person, len(self.numbers))
        self.statements.append(statement)
        self.table.append((row, subject, asked, person))

    def columns(self) -> dict[str, Tensor]:
        names = ("rows", "subjects", "asked", "people")
        return dict(zip(names, torch.tensor(self.table).T, strict=True))


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


def encode(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Document],
) -> Batch:
    """Tensors of documents, facts in the order of their statements."""
    told = [document.render() for document in documents]
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
    return Batch(ids, ids[:, 1:], text, objects, slots.statements, **slots.columns())
