"""How well a fact model answers: the part of its answers whose every token is the likeliest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    A causal model goes on from the prompt, a masked one fills masks at its end, one for each token
    of the answer, and one that reads and writes reads the prompt and writes the answer.

    Args:
        before: text put before each prompt, with its space.
    """
    rows = [_row(tokenizer, before + prompt, answer, model.config) for prompt, answer in asked]
    hits = 0
    for at in range(0, len(rows), 64):
        some = rows[at : at + 64]
        ids, mask = padded([read for read, _, _, _ in some], _padding(tokenizer))
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if some[0][1]:
            inputs["decoder_input_ids"] = padded([list(w) for _, w, _, _ in some], 0)[0]
        best = model(**inputs).logits.argmax(-1).tolist()
        for (_, _, first, answer), said in zip(some, best, strict=True):
            hits += said[first : first + len(answer)] == answer
    return hits / len(rows)


def _padding(tokenizer: PreTrainedTokenizerFast) -> int:
    token = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if token is None else token)


def _row(
    tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str, config: Any
) -> tuple[list[int], Sequence[int], int, list[int]]:
    """What is read, what is written before, the first place of the answer, and the answer."""
    if config.is_encoder_decoder:
        target = list(tokenizer(answer)["input_ids"])
        start = int(config.decoder_start_token_id)
        return list(tokenizer(prompt)["input_ids"]), [start, *target[:-1]], 0, target
    target = list(tokenizer.encode(f" {answer}", add_special_tokens=False))
    if tokenizer.mask_token is not None:
        masks = " ".join([str(tokenizer.mask_token)] * len(target))
        read = list(tokenizer(f"{prompt} {masks}")["input_ids"])
        return read, (), read.index(int(tokenizer.mask_token_id)), target
    read = list(tokenizer.encode(prompt))
    return read + target, (), len(read) - 1, target
