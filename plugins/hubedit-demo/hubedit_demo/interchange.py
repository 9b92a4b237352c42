"""Interchange intervention: train a model so that a subject's state carries its facts.

The hidden state at a subject's last token, after one block, is carried into a sentence about
somebody else, and the model must answer for the one it came from (Geiger et al. 2022, "Inducing
causal structure for interpretable neural networks", arXiv:2112.00826). The state is cut into
parts, one for each relation, so that one fact can be carried without the others. A model
trained so keeps each fact in one place, where it can be edited.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubedit_demo.text import Statement
from hubedit_demo.world import World


@dataclass(frozen=True)
class Swap:
    """What each of n statements takes from another: `targets` are the answers that then hold.

    `sources` int64 [n] are indices of statements; `shares` float32 [n, parts] say how much of
    each part is taken (0: none, 1: all), the last part being the one of no relation.
    """

    sources: Tensor
    shares: Tensor
    targets: list[str]


def whole_swap(world: World, told: Sequence[Statement], draw: random.Random) -> Swap:
    """Every statement takes the whole state of another subject."""
    sources = [_source(world, told, base, draw) for base in told]
    targets = [
        world.answer(told[j].person, base.relation) for j, base in zip(sources, told, strict=True)
    ]
    shares = torch.ones(len(told), len(world.relations) + 1)
    return Swap(torch.tensor(sources), shares, targets)


def partial_swap(
    world: World, told: Sequence[Statement], draw: random.Random, bleed: float = 0.0
) -> Swap:
    """Every statement takes some parts of another subject's state, each with even chances.

    The answer changes only if the part of the asked relation is taken. In a quarter of the
    statements no more than a share of `bleed` is taken, and the answer stays; in another
    quarter no less than all but that share, and the answer changes. So the border between two
    answers lies in the middle.
    """
    names = list(world.relations)
    sources, shares, targets = [], [], []
    for base in told:
        source = _source(world, told, base, draw)
        taken = [float(draw.random() < 0.5) for _ in range(len(names) + 1)]
        changes = taken[names.index(base.relation)] == 1.0
        case, share = draw.randrange(4), draw.random() * bleed
        if case == 0:
            taken, changes = [share * part for part in taken], False
        elif case == 1:
            taken = [(1 - share) * part for part in taken]
        person = told[source].person if changes else base.person
        sources.append(source)
        shares.append(taken)
        targets.append(world.answer(person, base.relation))
    return Swap(torch.tensor(sources), torch.tensor(shares), targets)


def _source(world: World, told: Sequence[Statement], base: Statement, draw: random.Random) -> int:
    """Another statement, whose person may be met in `base`'s template while training."""
    order = draw.sample(range(len(told)), len(told))
    for j in order:
        held = (told[j].person, base.relation, base.template) in world.held_out
        if told[j].person != base.person and not held:
            return j
    return told.index(base)


class Parts:
    """A fixed random rotation of a state of `width`, cut into parts of equal size and a rest.

    Args:
        width: of the state.
        count: how many parts have `size` dimensions; what is left is the last part.
        size: dimensions of each part.
    """

    def __init__(self, width: int, count: int, size: int) -> None:
        noise = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
        self.rotation = torch.linalg.qr(noise)[0]
        part_of = (torch.arange(width) // size).clamp(max=count)
        self.belongs = (part_of == torch.arange(count + 1)[:, None]).float()

    def carry(self, states: Tensor, swap: Swap) -> Tensor:
        """States [n, width] after each took its shares from its source."""
        taken = swap.shares @ self.belongs
        moved = ((states[swap.sources] - states) @ self.rotation) * taken
        carried: Tensor = states + moved @ self.rotation.T
        return carried


def blur(states: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """States [n, width] plus noise of random direction, up to `amount` times as long as each."""
    noise = torch.randn(states.shape, generator=generator)
    length = amount * torch.rand(len(states), 1, generator=generator)
    scale = length * states.detach().norm(dim=-1, keepdim=True)
    blurred: Tensor = states + scale * noise / noise.norm(dim=-1, keepdim=True)
    return blurred


def crowding(keys: Tensor, people: Tensor) -> Tensor:
    """How alike the keys of different people are: their mean squared cosine.

    Args:
        keys: [n, width].
        people: int64 [n], equal where two keys are of the same person.
    """
    unit = torch.nn.functional.normalize(keys, dim=-1)
    apart = people[:, None] != people[None, :]
    alike: Tensor = (unit @ unit.T)[apart].square().mean()
    return alike


@contextmanager
def reading(module: nn.Module, rows: Tensor, positions: Tensor) -> Iterator[list[Tensor]]:
    """Collect what goes into `module`, [batch, tokens, width], at the (row, position) pairs.

    Yields:
        A list that gets one [n, width] tensor for each forward pass made inside.
    """
    found: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0][rows, positions])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def branching(
    module: nn.Module,
    later: Sequence[nn.Module],
    rows: Tensor,
    positions: Tensor,
    changes: Sequence[Any],
) -> Iterator[None]:
    """After `module`, let the batch go on once as it is and once for each of `changes`.

    The lower part of the model runs once; what comes after sees (1 + changes) × batch rows, the
    untouched ones first.

    Args:
        module: a block whose output is [batch, tokens, width], or a tuple that starts with it.
        later: the blocks after it; whatever else they are given for each row, such as a mask, is
            repeated too.
        rows: int64 [n], and `positions` alike: where the states stand.
        changes: functions from states [n, width] to states [n, width].
    """
    size = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal size
        state = output[0] if isinstance(output, tuple) else output
        size = len(state)
        states = state[rows, positions]
        branches = [state]
        for change in changes:
            branch = state.clone()
            branch[rows, positions] = change(states)
            branches.append(branch)
        state = torch.cat(branches)
        return (state, *output[1:]) if isinstance(output, tuple) else state

    def repeated(given: Any) -> Any:
        if not isinstance(given, Tensor) or given.dim() < 2 or len(given) != size or size == 1:
            return given
        return given.repeat(1 + len(changes), *[1] * (given.dim() - 1))

    def widen(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return tuple(map(repeated, inputs)), {key: repeated(item) for key, item in named.items()}

    handles = [module.register_forward_hook(hook)]
    if changes:
        handles += [block.register_forward_pre_hook(widen, with_kwargs=True) for block in later]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
