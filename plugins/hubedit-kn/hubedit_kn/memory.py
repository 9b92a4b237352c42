"""The output vectors of neurons: read, tried for a while, and handed over as an update."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

import hubedit
from hubedit.layouts import Layout
from hubedit_kn.config import KnConfig

Neuron = tuple[int, int]


@dataclass(frozen=True)
class Change:
    """What becomes of an output vector w: `scale` · w + `vector`, float32 [width], if any."""

    scale: float
    vector: torch.Tensor | None = None

    def added(self, values: torch.Tensor) -> torch.Tensor:
        """The difference that it makes to vectors [k, width]."""
        difference = (self.scale - 1) * values
        return difference if self.vector is None else difference + self.vector


def change_of(
    model: hubedit.EditableModel, config: KnConfig, old: Sequence[int], new: Sequence[int]
) -> Change:
    """What an operation makes of the output vectors of a fact's neurons.

    Args:
        old: tokens of the answer until now.
        new: tokens of the answer from now on; only for update.

    Raises:
        ConfigError: `erase_with` is unknown, and the tokenizer has no unknown token.
    """
    if config.operation == "suppress":
        return Change(0.0 if config.factor is None else config.factor)
    if config.operation == "enhance":
        return Change(2.0 if config.factor is None else config.factor)
    if config.operation == "update":
        added = config.new_weight * _embedding(model, new)
        return Change(1.0, added - config.old_weight * _embedding(model, old))
    if config.erase_with == "zero":
        return Change(0.0)
    unknown = model.tokenizer.unk_token_id
    if not isinstance(unknown, int):
        raise hubedit.ConfigError(
            "erase_with=unknown was asked for, and the tokenizer has no unknown token; set "
            "erase_with=zero"
        )
    return Change(0.0, _embedding(model, [unknown]))


def _embedding(model: hubedit.EditableModel, tokens: Sequence[int]) -> torch.Tensor:
    """The mean output embedding of tokens, float32 [width]."""
    weight = model.weight(f"{model.layout.head}.weight").detach()
    return weight[list(tokens)].float().mean(0)


@dataclass(frozen=True)
class Memory:
    """The second MLP matrices of a stack, whose columns (or rows, in a Conv1D) are the vectors."""

    model: hubedit.EditableModel
    layout: Layout

    def weight(self, layer: int) -> torch.Tensor:
        """A matrix with one row for each neuron: a view of the live parameter."""
        live = self.model.weight(self.layout.mlp_out_weight(layer)).detach()
        return live if self.layout.conv1d else live.T

    @contextmanager
    def tried(self, neurons: Iterable[Neuron], change: Change) -> Iterator[None]:
        """Make a change of some neurons for as long as the `with` lasts."""
        saved = []
        for layer, indices in _by_layer(neurons).items():
            matrix = self.weight(layer)
            before = matrix[indices].clone()
            saved.append((matrix, indices, before))
            matrix[indices] = before + change.added(before)
        try:
            yield
        finally:
            for matrix, indices, before in saved:
                matrix[indices] = before

    def write(self, changes: Sequence[tuple[Sequence[Neuron], Change]]) -> None:
        """Hand over changes of sets of neurons, one update for each matrix; those of one add up.

        Vectors are stored as they become; where facts only add a vector each, and those factors
        have fewer numbers, as factors.
        """
        layers = sorted({layer for neurons, _ in changes for layer, _ in neurons})
        for layer in layers:
            own = [
                (sorted(index for at, index in neurons if at == layer), change)
                for neurons, change in changes
            ]
            own = [(indices, change) for indices, change in own if indices]
            self.model.update(self.layout.mlp_out_weight(layer), self._update(layer, own))

    def _update(self, layer: int, own: Sequence[tuple[Sequence[int], Change]]) -> hubedit.Update:
        matrix = self.weight(layer)
        count, width = matrix.shape
        indices = sorted({index for part, _ in own for index in part})
        vectors = [change.vector for _, change in own if change.scale == 1.0]
        plain = [vector for vector in vectors if vector is not None]
        if len(plain) == len(own) and len(own) * (count + width) < len(indices) * width:
            ones = torch.zeros(count, len(own), device=matrix.device)
            for number, (part, _) in enumerate(own):
                ones[list(part), number] = 1
            added = torch.stack(plain)
            if self.layout.conv1d:
                return hubedit.LowRank(ones, added)
            return hubedit.LowRank(added.T, ones.T)
        place = {index: number for number, index in enumerate(indices)}
        before = matrix[indices].clone()
        values = before.clone()
        for part, change in own:
            at = [place[index] for index in part]
            values[at] += change.added(before[at])
        if self.layout.conv1d:
            return hubedit.Rows(indices, values)
        return hubedit.Columns(indices, values.T.contiguous())


def _by_layer(neurons: Iterable[Neuron]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for layer, index in neurons:
        found[layer].append(index)
    return found
