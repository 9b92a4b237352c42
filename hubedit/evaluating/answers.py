"""What a model answers to items: probabilities under teacher forcing, and what it writes freely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hubedit.evaluating.cases import Item
from hubedit.probes import Asked, Scored
from hubedit.rows import continued

FREE_TOKENS = 3
"""Tokens that are written freely beyond the length of the answer, so that its end is seen."""
UNKNOWN_TOKENS = 5
"""Tokens that are written where no answer is known."""

_END = re.compile(r"\n|[.!?;](?=\s|$)")


@dataclass(frozen=True)
class Heard:
    """What a model says to one item.

    `target` and `rival` hold natural logarithms, a token each; `written` is what it writes freely,
    without the prompt.
    """

    target: Scored | None
    rival: Scored | None
    written: str

    @property
    def answer(self) -> str:
        """The written text up to the end of its first sentence or line."""
        return _END.split(self.written.strip(), maxsplit=1)[0].strip()


def hear(model: Asked, asked: Sequence[Item]) -> list[Heard]:
    """Put items to a model; what is heard comes in the same order.

    An item without an answer that is known beforehand is scored on what is written alone.
    """
    targets = _scored(model, [(item.prompt, item.target) for item in asked])
    rivals = _scored(model, [(item.prompt, item.rival) for item in asked])
    lengths = [
        UNKNOWN_TOKENS if score is None else len(score.token_ids) + FREE_TOKENS for score in targets
    ]
    written = [""] * len(asked)
    for length in sorted(set(lengths)):
        members = [index for index, own in enumerate(lengths) if own == length]
        texts = model.generate([asked[index].prompt for index in members], length)
        for index, text in zip(members, texts, strict=True):
            written[index] = text
    return [
        Heard(target, rival, text)
        for target, rival, text in zip(targets, rivals, written, strict=True)
    ]


def _scored(model: Asked, pairs: Sequence[tuple[str, str | None]]) -> list[Scored | None]:
    known = [(index, answer) for index, (_, answer) in enumerate(pairs) if answer]
    scores = model.target_logprobs(
        [(pairs[index][0], continued(pairs[index][0], answer)) for index, answer in known]
    )
    found: list[Scored | None] = [None] * len(pairs)
    for (index, _), score in zip(known, scores, strict=True):
        found[index] = score
    return found
