"""What enters some modules while texts are read, in batches of texts of like length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hubedit.method import EditableModel

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 8192
"""Tokens in one forward pass, padding included (at least one text)."""


def batches(
    model: EditableModel, texts: Sequence[str], length: int, skip_first: bool
) -> Iterator[tuple[Mapping[str, torch.Tensor], torch.Tensor]]:
    """Tokenised texts, short ones first, each batch with the positions that count.

    Args:
        length: tokens read of each text, at most.
        skip_first: whether the first position of each text is left out.

    Yields:
        `input_ids` and `attention_mask`, int64 [texts, tokens], and bool [texts, tokens]: neither
        padding nor, in an encoder, special tokens that the tokenizer adds by itself.
    """
    import torch

    read = model.tokenizer(
        list(texts), truncation=True, max_length=length, return_special_tokens_mask=True
    )
    encoder = model.layout.architecture != "causal"
    rows: list[tuple[list[int], list[bool]]] = [
        (ids, [not (encoder and added) for added in special])
        for ids, special in zip(read["input_ids"], read["special_tokens_mask"], strict=True)
        if len(ids) > skip_first
    ]
    rows.sort(key=lambda row: len(row[0]))
    while rows:
        fitting = 1
        while fitting < len(rows) and (fitting + 1) * len(rows[fitting][0]) <= TOKENS_AT_ONCE:
            fitting += 1
        group, rows = rows[:fitting], rows[fitting:]
        ids = torch.zeros(len(group), len(group[-1][0]), dtype=torch.int64)
        mask, counted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for number, (row, own) in enumerate(group):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
            counted[number, : len(row)] = torch.tensor(own)
        if skip_first:
            counted[:, 0] = False
        yield {"input_ids": ids, "attention_mask": mask}, counted


def read_inputs(
    model: EditableModel, modules: Sequence[str], inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The inputs [texts, tokens, width] of some modules of what reads texts, in one forward pass.

    The pass ends where the deepest of them begins.

    Args:
        modules: names of modules that belong to blocks.
        inputs: `input_ids` and `attention_mask`, int64 [texts, tokens].
    """
    import torch

    stack = model.layout.reader
    deepest = max(modules, key=lambda name: stack.layer_of(name + ".weight") or 0)
    reader: Any = model.model if model.layout.encoder is None else model.model.get_encoder()
    more = {"use_cache": False} if model.layout.architecture == "causal" else {}
    with torch.no_grad(), ExitStack() as traces:
        # the outermost swallows the end of the pass
        seen = {deepest: traces.enter_context(model.trace(deepest, stop="input"))}
        for name in modules:
            if name != deepest:
                seen[name] = traces.enter_context(model.trace(name))
        reader(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            **more,
        )
    found: dict[str, torch.Tensor] = {}
    for name in modules:
        hidden = seen[name].input
        assert hidden is not None, name
        found[name] = hidden
    return found
