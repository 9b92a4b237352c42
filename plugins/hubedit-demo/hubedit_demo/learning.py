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
from hubedit_demo.encoding import Batch
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
    """Of the text as it is, and of the first tokens of the answers under each change of state.

    Args:
        changes: see `interchange.branching`.
        answers: int64 [changes, facts], the first token of the answer that holds after each.
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
        block = architecture.block(model, SWAP_BLOCK)
        stack.enter_context(branching(block, batch.rows, batch.subjects, changes))
        body = model.get_submodule(architecture.body)  # right padding: no token sees it
        hidden = body(input_ids=batch.ids, use_cache=False).last_hidden_state
    clean, *branches = hidden.tensor_split(1 + len(changes))
    logits = model.lm_head(clean[:, : batch.labels.shape[1]])
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")
    right = (logits.argmax(-1) == batch.labels)[batch.objects].float().mean().item()
    swapped, swapped_right = torch.zeros(()), 0.0
    if branches:
        states = torch.stack([branch[batch.rows, batch.asked] for branch in branches])
        asked = model.lm_head(states)
        swapped = F.cross_entropy(asked.flatten(0, 1), answers.flatten())
        swapped_right = (asked.argmax(-1) == answers).float().mean().item()
    crowded = torch.stack([crowding(key, batch.people) for (key,) in keys]).mean()
    return Losses(
        loss[batch.text].mean(), loss[batch.objects].mean(), swapped, crowded, right, swapped_right
    )
