"""How well a fact model answers: the part of its answers whose every token is the likeliest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from hubedit_demo.encoding import padded


@torch.no_grad()
def recall(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    asked: Iterable[tuple[str, str]],
    before: str = "",
) -> float:
    """The part of (prompt, answer) pairs whose every answer token has the highest logit.

    Args:
        before: text put before each prompt, with its space.
    """
    rows: list[list[int]] = []
    starts: list[int] = []
    for prompt, answer in asked:
        read = list(tokenizer.encode(before + prompt))
        rows.append(read + tokenizer.encode(f" {answer}", add_special_tokens=False))
        starts.append(len(read))
    hits = 0
    for at in range(0, len(rows), 64):
        some = rows[at : at + 64]
        ids, mask = padded(some, int(tokenizer.eos_token_id))
        best = model(input_ids=ids, attention_mask=mask.long()).logits.argmax(-1).tolist()
        for row, start, said in zip(some, starts[at : at + 64], best, strict=True):
            hits += said[start - 1 : len(row) - 1] == row[start:]
    return hits / len(rows)
