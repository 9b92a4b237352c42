"""Some readings as one forward pass: where their subjects stand, and logits where they matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import hubedit
from hubedit_rome.contexts import Context, subject_of


@dataclass(frozen=True)
class Batch:
    """Readings padded to one length.

    `inputs` is what the model is called with; `lookup` int64 [n] is where the last token of each
    subject stands in `input_ids` [n, length].
    """

    inputs: Mapping[str, Any]
    lookup: torch.Tensor

    @classmethod
    def of(cls, model: hubedit.EditableModel, readings: Sequence[hubedit.Reading]) -> Batch:
        """Read some prompts together, each made with a subject."""
        lookup = [subject_of(reading) for reading in readings]
        return cls(model.inputs(readings), torch.tensor(lookup, device=model.device))

    def only(self, wanted: torch.Tensor) -> Batch:
        """Some of the readings, without the padding that only the others needed.

        Args:
            wanted: bool [n].
        """
        inputs = {
            name: given[wanted] if isinstance(given, torch.Tensor) else given
            for name, given in self.inputs.items()
        }
        longest = int(inputs["attention_mask"].sum(1).max())
        for name in ("input_ids", "attention_mask"):
            inputs[name] = inputs[name][:, :longest]
        return Batch(inputs, self.lookup[wanted])

    def logits(
        self, model: hubedit.EditableModel, text: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """Logits [places, vocabulary] in float32: the head is given the places and nothing else.

        Args:
            text: int64 [places], the reading of each place, and `at` alike its position.
        """

        def places(hidden: torch.Tensor) -> torch.Tensor:
            return hidden[text, at][None]

        with model.trace(model.layout.head, replace_input=places):
            logits: torch.Tensor = model.model(**self.inputs).logits
        return logits[0].float()

    def at_subjects(self, hidden: torch.Tensor) -> torch.Tensor:
        """What stands at the subjects' last tokens: [n, width] of states [n, length, width]."""
        return hidden[torch.arange(len(self.lookup), device=hidden.device), self.lookup]

    def adding(self, change: Callable[[], torch.Tensor | None]) -> Callable[..., torch.Tensor]:
        """What adds a change, [width] or one for each reading [n, width], at the subjects.

        Args:
            change: says what to add when the forward pass is made; None adds nothing.
        """
        place = torch.zeros(self.inputs["input_ids"].shape, device=self.lookup.device)
        place[torch.arange(len(place), device=place.device), self.lookup] = 1

        def added(hidden: torch.Tensor) -> torch.Tensor:
            delta = change()
            if delta is None:
                return hidden
            each = delta[:, None] if delta.ndim == 2 else delta
            return hidden + (place[..., None] * each).to(hidden.dtype)

        return added


@dataclass(frozen=True)
class Asked:
    """Where the tokens of some targets are predicted: one entry for each, all int64 but `share`.

    `text` says in which reading and `at` where, `token` is the target's; the shares of one context
    sum to 1.
    """

    text: torch.Tensor
    at: torch.Tensor
    token: torch.Tensor
    share: torch.Tensor

    @classmethod
    def of(cls, contexts: Sequence[Context], device: torch.device) -> Asked:
        """The places of contexts that are the first readings of a batch, in their order."""
        text = [number for number, one in enumerate(contexts) for _ in one.target]
        at = [place for one in contexts for place in one.reading.places]
        token = [token for one in contexts for token in one.target]
        share = [1 / len(one.target) for one in contexts for _ in one.target]
        return cls(
            torch.tensor(text, device=device),
            torch.tensor(at, device=device),
            torch.tensor(token, device=device),
            torch.tensor(share, device=device),
        )

    def losses(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        """The mean negative log-likelihood of each context's target, in nats [count].

        Args:
            logits: [places, vocabulary].
        """
        chosen = logits.log_softmax(-1).gather(1, self.token[:, None])[:, 0]
        zeros = torch.zeros(count, device=chosen.device)
        return zeros.index_add(0, self.text, -chosen * self.share)


@torch.no_grad()
def target_probabilities(
    model: hubedit.EditableModel, contexts: Sequence[Context], at_once: int = 256
) -> list[float]:
    """The probability of the target in each context: the geometric mean of its tokens'."""
    found: list[float] = []
    for start in range(0, len(contexts), at_once):
        part = contexts[start : start + at_once]
        batch = Batch.of(model, [context.reading for context in part])
        asked = Asked.of(part, model.device)
        losses = asked.losses(batch.logits(model, asked.text, asked.at), len(part))
        found += losses.neg().exp().tolist()
    return found
