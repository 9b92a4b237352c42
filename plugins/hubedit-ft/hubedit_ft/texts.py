"""The rows as batches of texts, and the loss of their targets; needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hubedit_rome.contexts import Context, place_all

import hubedit


@dataclass(frozen=True)
class Batch:
    """Some rows, tokenised together.

    A place is where a target's token is asked for: in the text `text`, at the position whose next
    token it is, `at`. `token` is the target's and `share` its weight, 1 in all for each row.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    text: torch.Tensor
    at: torch.Tensor
    token: torch.Tensor
    share: torch.Tensor

    def losses(self, model: hubedit.EditableModel) -> torch.Tensor:
        """The mean negative log-likelihood of each row's target tokens, in nats [rows]."""

        def places(hidden: torch.Tensor) -> torch.Tensor:
            return hidden[self.text, self.at][None]

        with model.trace(model.layout.head, replace_input=places):
            logits: torch.Tensor = model.model(
                input_ids=self.ids, attention_mask=self.mask, use_cache=False
            ).logits
        likely = logits[0].float().log_softmax(-1).gather(1, self.token[:, None])[:, 0]
        zeros = torch.zeros(len(self.ids), device=likely.device)
        return zeros.index_add(0, self.text, -likely * self.share)


def placed(model: hubedit.EditableModel, rows: Sequence[hubedit.FactEdit]) -> list[Context]:
    """Every row's prompt and target as one text, its tokens located.

    Raises:
        MethodError: a target has no token of its own, or a row is longer than the model reads.
    """
    return [place_all(model, row, [""])[0] for row in rows]


def batches(
    model: hubedit.EditableModel, contexts: Sequence[Context], size: int, at_end: bool
) -> list[Batch]:
    """The rows in their order, `size` at a time.

    Args:
        at_end: ask for all tokens of a target at the prompt's last token, and not each after those
            before it.
    """
    return [
        _batch(model, contexts[start : start + size], at_end)
        for start in range(0, len(contexts), size)
    ]


def _batch(model: hubedit.EditableModel, contexts: Sequence[Context], at_end: bool) -> Batch:
    inputs = model.batch([context.text for context in contexts])
    ids, mask = (inputs[name].to(model.device) for name in ("input_ids", "attention_mask"))
    text: list[int] = []
    at: list[int] = []
    asked: list[int] = []
    share: list[float] = []
    for number, context in enumerate(contexts):
        tokens = range(context.first, context.last + 1)
        text += [number] * len(tokens)
        at += [context.first - 1 if at_end else token - 1 for token in tokens]
        asked += tokens
        share += [1 / len(tokens)] * len(tokens)
    where = torch.tensor(text, device=ids.device)
    return Batch(
        ids,
        mask,
        where,
        torch.tensor(at, device=ids.device),
        ids[where, torch.tensor(asked, device=ids.device)],
        torch.tensor(share, device=ids.device),
    )
