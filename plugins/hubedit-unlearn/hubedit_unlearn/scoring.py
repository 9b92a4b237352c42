"""One forward pass over examples: what the model gives each scored token; needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

import hubedit
from hubedit_unlearn.texts import IGNORED, Batch, Example, batch_of, padding_of


@dataclass(frozen=True)
class Share:
    """How many scored tokens, real tokens and examples a whole optimiser step holds.

    Losses of batches are divided by these and not by their own counts, so that they add up to the
    step's loss however it is cut into batches.
    """

    tokens: int
    read: int
    examples: int

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Share:
        """The counts of some examples, none below 1."""
        tokens = sum(example.labelled for example in examples)
        read = sum(len(example.ids) for example in examples)
        return cls(max(tokens, 1), max(read, 1), max(len(examples), 1))


@dataclass(frozen=True)
class Scored:
    """What a model gives the scored tokens of a batch.

    `logits` float32 [tokens, vocabulary]; `labels` and `row` int64 [tokens], the token that follows
    and the example it belongs to; `examples` how many there are; `share` as in `Share`. `before`
    holds what was kept of the model before training: its summed cross-entropy of each example
    [examples], or its logits like `logits`, as the term asked for.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    row: torch.Tensor
    examples: int
    share: Share
    before: torch.Tensor | None = None

    @cached_property
    def nll(self) -> torch.Tensor:
        """Cross-entropy of each scored token in nats, float32 [tokens]."""
        return torch.nn.functional.cross_entropy(self.logits, self.labels, reduction="none")

    @cached_property
    def sums(self) -> torch.Tensor:
        """Summed cross-entropy of each example in nats, float32 [examples]."""
        return self.per_example(self.nll)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """Scored tokens of each example, float32 [examples], at least 1."""
        return self.per_example(torch.ones_like(self.labels, dtype=torch.float32)).clamp(min=1)

    def per_example(self, values: torch.Tensor) -> torch.Tensor:
        """Sums of values [tokens] over the tokens of each example, [examples]."""
        return values.new_zeros(self.examples).index_add(0, self.row, values)


@dataclass(frozen=True)
class Observed:
    """Hidden states of a batch's real tokens after one block, float32 [tokens, width].

    `before` are those of the model before training, if the term asked for them.
    """

    states: torch.Tensor
    share: Share
    before: torch.Tensor | None = None


def logits_of(
    model: hubedit.EditableModel, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits at the scored tokens of a batch, their labels, and the example of each.

    Padding stands on the right, where no token sees it, so no attention mask is needed; logits
    are computed only for positions at which some example has a scored token.
    """
    batch = batch_of(examples, padding_of(model), model.device)
    columns, labels = places(batch)
    out = model.model(input_ids=batch.ids, use_cache=False, logits_to_keep=columns)
    at = labels != IGNORED
    return out.logits[at].float(), labels[at], at.nonzero()[:, 0]


def places(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [columns] from which some example predicts a scored token, and what follows there.

    The labels are int64 [examples, columns], `IGNORED` where an example scores nothing.
    """
    labels = batch.labels[:, 1:]
    columns = (labels != IGNORED).any(0).nonzero()[:, 0]
    return columns, labels[:, columns]


def scored(
    model: hubedit.EditableModel,
    examples: Sequence[Example],
    share: Share | None = None,
    before: torch.Tensor | None = None,
) -> Scored:
    """Score every labelled token given those before it; `share` is by default the batch's own."""
    logits, labels, row = logits_of(model, examples)
    return Scored(logits, labels, row, len(examples), share or Share.of(examples), before)


def observed(
    model: hubedit.EditableModel,
    examples: Sequence[Example],
    layer: int,
    share: Share | None = None,
    before: torch.Tensor | None = None,
) -> Observed:
    """The hidden states after a block; blocks above it do not run."""
    batch = batch_of(examples, padding_of(model), model.device)
    block = model.layout.at("block", layer)
    with model.trace(block, stop=True) as seen:
        model.model(input_ids=batch.ids, use_cache=False)
    states = seen.output[batch.mask.bool()].float()
    return Observed(states, share or Share.of(examples), before)
