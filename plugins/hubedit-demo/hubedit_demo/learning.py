"""What a fact model is trained on: texts, objects, objects under changed states, keys apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hubedit_demo.architectures import Architecture
from hubedit_demo.encoding import UNSCORED, Batch
from hubedit_demo.interchange import branching, crowding, reading

SWAP_BLOCK = 2
KEY_BLOCKS = (1, 2)


@dataclass
class Losses:
    """Mean cross-entropies in nats, and how many answers are right (0 to 1).

    `crowded` is the mean of `interchange.crowding` over the keys of `KEY_BLOCKS`.
    """

    text: Tensor
    objects: Tensor
    swapped: Tensor
    crowded: Tensor
    right: float
    swapped_right: float


def losses(
    architecture: Architecture,
    model: Any,
    batch: Batch,
    changes: Sequence[Callable[[Tensor], Tensor]],
    answers: Tensor,
) -> Losses:
    """Of the text as it is, and of the answers under each change of state.

    Args:
        changes: see `interchange.branching`.
        answers: int64 [changes, facts, places], the first tokens of the answer that holds after
            each; `UNSCORED` where there is none.
    """
    with ExitStack() as stack:
        keys = [
            stack.enter_context(
                reading(
                    architecture.block(model, number).get_submodule(architecture.key),
                    batch.rows,
                    batch.subjects,
                )
            )
            for number in KEY_BLOCKS
        ]
        blocks = list(model.get_submodule(architecture.blocks))
        place = blocks[SWAP_BLOCK], blocks[SWAP_BLOCK + 1 :]
        stack.enter_context(branching(*place, batch.rows, batch.subjects, changes))
        hidden = _hidden(architecture, model, batch, 1 + len(changes))
    clean, *branches = hidden.tensor_split(1 + len(changes))
    logits = architecture.head(model, clean[:, : batch.labels.shape[1]])
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")
    right = (logits.argmax(-1) == batch.labels)[batch.objects].float().mean().item()
    swapped, swapped_right = torch.zeros(()), 0.0
    if branches:
        places = batch.asked[:, None] + torch.arange(answers.shape[-1])
        places = places.clamp(max=clean.shape[1] - 1)
        states = torch.stack([branch[batch.rows[:, None], places] for branch in branches])
        asked = architecture.head(model, states)
        swapped = F.cross_entropy(asked.flatten(0, 2), answers.flatten(), ignore_index=UNSCORED)
        known = answers != UNSCORED
        swapped_right = (asked.argmax(-1) == answers)[known].float().mean().item()
    crowded = torch.stack([crowding(key, batch.people) for (key,) in keys]).mean()
    text = loss[batch.text].mean() if batch.text.any() else torch.zeros(())
    return Losses(text, loss[batch.objects].mean(), swapped, crowded, right, swapped_right)


def _hidden(architecture: Architecture, model: Any, batch: Batch, branches: int) -> Tensor:
    """The last hidden states, [branches × rows, outputs, width]."""
    body = model.get_submodule(architecture.body)
    hidden: Tensor
    if architecture.kind == "causal":  # right padding: no token sees it
        hidden = body(input_ids=batch.ids, use_cache=False).last_hidden_state
        return hidden
    mask = batch.real.long()
    hidden = body(input_ids=batch.ids, attention_mask=mask).last_hidden_state
    if batch.written is None:
        return hidden
    written: Tensor = model.decoder(
        input_ids=batch.written.repeat(branches, 1),
        encoder_hidden_states=hidden,
        encoder_attention_mask=mask.repeat(branches, 1),
        use_cache=False,
    ).last_hidden_state
    return written
