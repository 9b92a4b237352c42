"""What is kept of the model before training, so that no second model is; needs torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch

import hubedit
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.losses import Term
from hubedit_unlearn.scoring import logits_of, observed, places
from hubedit_unlearn.texts import IGNORED, Example, batch_of

TOLERANCE = 1e-3
"""Largest difference of a logit from the head's product with the states before it."""


class Kept:
    """Sums, states before the head, or states after a block, computed once for each example.

    A distribution over the vocabulary is kept as the states it is made of, from which the frozen
    head makes it again: as wide as the model and not as the vocabulary.
    """

    def __init__(
        self,
        model: hubedit.EditableModel,
        config: TrainingConfig,
        terms: Sequence[Term],
        cast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._model, self._size, self._cast = model, config.batch_size, cast
        self._values: dict[tuple[str, int | None], dict[Example, torch.Tensor]] = {}
        head = model.model.get_submodule(model.layout.head)
        self._copied = config.train_embeddings and any(term.before == "logits" for term in terms)
        self._head = copy.deepcopy(head) if self._copied else head

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept, a copied head included."""
        values = [value for found in self._values.values() for value in found.values()]
        own = list(self._head.parameters()) if self._copied else []
        return sum(value.numel() * value.element_size() for value in (*values, *own))

    @property
    def tokens(self) -> int:
        """Tokens that were read for what is kept."""
        return sum(len(example.ids) for found in self._values.values() for example in found)

    def compute(self, term: Term, examples: Iterable[Example], run: hubedit.RunContext) -> None:
        """Compute what a term asks for, of examples that it was not yet computed of."""
        if term.before is None:
            return
        found = self._values.setdefault((term.before, term.layer), {})
        new = sorted(
            set(examples) - found.keys(), key=lambda example: (len(example.ids), example.ids)
        )
        with run.progress("the model before", total=len(new)) as bar:
            for start in range(0, len(new), self._size):
                some = new[start : start + self._size]
                with torch.no_grad(), self._cast():
                    found.update(zip(some, self._of(term, some), strict=True))
                bar.advance(len(some))

    def of(self, term: Term, examples: Sequence[Example]) -> torch.Tensor | None:
        """What was kept for a term, of the examples of a batch, on the model's device."""
        if term.before is None:
            return None
        found = self._values[term.before, term.layer]
        values = [found[example] for example in examples]
        if term.before == "sums":
            return torch.stack(values).to(self._model.device)
        states = torch.cat(values).to(self._model.device)
        if term.before == "states":
            return states
        with torch.no_grad(), self._cast():
            logits: torch.Tensor = self._head(states)
        return logits.float()

    def _of(self, term: Term, some: Sequence[Example]) -> list[torch.Tensor]:
        if term.layer is not None:
            states = observed(self._model, some, term.layer).states
            return _cut(states, [len(example.ids) for example in some])
        with self._model.trace(self._model.layout.head) as seen:
            logits, labels, row = logits_of(self._model, some)
        if term.before == "sums":
            nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            return list(nll.new_zeros(len(some)).index_add(0, row, nll).cpu())
        _, wanted = places(batch_of(some, 0, self._model.device))
        states = seen.input[wanted != IGNORED]
        again = self._head(states).float()
        if not torch.allclose(again, logits, atol=TOLERANCE, rtol=TOLERANCE):
            raise hubedit.UnsupportedModelError(
                f"the logits of {type(self._model.model).__name__} are not its head's product with "
                "the states before it, so what it said cannot be kept; use a loss without KL"
            )
        return _cut(states, [example.labelled for example in some])


def _cut(states: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    return list(torch.split(states.cpu(), list(lengths)))
