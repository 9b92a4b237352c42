"""Blocks of which every rank holds a part, while the model is trained; needs torch."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

import hubedit

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)
Shard = DTensor
"""A tensor of which this rank holds a part."""


class Sharding(Protocol):
    """Whether and how a run shards what it trains."""

    @property
    def sharded(self) -> bool:
        """Whether every rank holds a part of each block."""

    def shard(self, model: hubedit.EditableModel) -> None:
        """Leave this rank its parts of the blocks of `model`, which it holds whole before."""


@contextmanager
def trainee(model: hubedit.EditableModel, sharding: Sharding) -> Iterator[hubedit.EditableModel]:
    """The model to train while the `with` lasts: `model` itself, or one to be sharded in its place.

    The second has modules of its own around the same values. Whole weights wait in the memory of
    the CPU meanwhile; what was trained is put into them when the `with` ends well.
    """
    if not sharding.sharded:
        yield model
        return
    whole, device = model.model, model.device
    own = copy.copy(model)
    own.model = _around_the_same(whole)
    for parameter in whole.parameters():
        parameter.data = parameter.data.cpu()
    try:
        yield own
        _take_over(whole, own.model)
    finally:
        own.model = whole
        gc.collect()
        for parameter in whole.parameters():
            parameter.data = parameter.data.to(device)


def shard_blocks(model: hubedit.EditableModel) -> None:
    """Shard every block by FSDP2 (`fully_shard`), each gathered for as long as it runs.

    Embeddings, last norm and head stay whole on every rank: what the model before said is made
    again by the head alone, and a forward pass may end below it. Gradients come out as means.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    for layer in range(model.layout.depth(model.model.config)):
        block = model.model.get_submodule(model.layout.at("block", layer))
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def gathered(value: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor; every rank must ask for it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """A whole value that all ranks have, on the device of `pattern` and sharded as it is."""
    value = value.to(pattern.device)
    if not isinstance(pattern, DTensor):
        return value
    return distribute_tensor(value, pattern.device_mesh, pattern.placements)


def by_kind(values: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The tensors that are not sharded, and those that are, which no operation takes together."""
    kinds: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for value in values:
        kinds[isinstance(value, DTensor)].append(value)
    return [kind for kind in kinds if kind]


def _take_over(whole: torch.nn.Module, trained: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad:
                whole.get_parameter(name).copy_(gathered(parameter))


def _around_the_same(module: ModuleT) -> ModuleT:
    """A module like another, of the same values, whose parameters are objects of its own."""
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = torch.nn.Parameter(parameter.detach(), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(module, memo)
