"""One process or several that train one model together, each on a part of every step's batch."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

import hubedit
from hubedit_unlearn.sharding import Shard, by_kind, gathered, shard_blocks

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
BUCKET = 1 << 25
"""Elements that are summed over the ranks at once."""


class Ranks:
    """The ranks of one run, as a launcher such as `accelerate launch` starts them.

    All ranks draw the same examples; each takes its part of a step's batches, and the gradients
    are summed. Every rank holds the same weights (data parallelism), or a part of each block if the
    launcher asked for FSDP (`sharded`). With one rank nothing is sent.

    Raises:
        MethodError: the launcher asks for DeepSpeed.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self.sharded = self.count > 1 and _asked_for("FSDP")
        self._device = device
        self._state: PartialState | None = None
        if self.count > 1:
            if _asked_for("DEEPSPEED"):
                raise hubedit.MethodError(
                    "DeepSpeed was asked for, which takes the training loop into its own hands; "
                    "launch with --use_fsdp, where every process holds a part of each block, or "
                    "with --multi_gpu, where every process holds the model"
                )
            from accelerate import PartialState

            self._state = PartialState(cpu=device.type == "cpu")
            atexit.register(_leave)

    @property
    def record(self) -> dict[str, Any]:
        """How many there were, and whether they shared the blocks, as JSON."""
        return {"ranks": self.count, **({"sharded": True} if self.sharded else {})}

    def shard(self, model: hubedit.EditableModel) -> None:
        """Leave this rank its parts of the blocks of `model`, if the run is sharded."""
        if self.sharded:
            shard_blocks(model)

    def mine(self, batches: Sequence[Sequence[T]]) -> Iterator[tuple[Sequence[T], bool]]:
        """The batches of a step that this rank takes, each with whether it counts.

        Blocks that are sharded run on all ranks or on none: a rank that is left without a batch
        then takes one that another rank counts.
        """
        for batch in batches[self.index :: self.count]:
            if batch:
                yield batch, True
            elif self.sharded and batches[-1]:
                yield batches[-1], False

    def sum_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Put into every parameter's `grad` the sum over all ranks."""
        if self._state is None:
            return
        whole = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if isinstance(parameter, Shard):
                parameter.grad.mul_(self.count)
            else:
                whole.append(parameter.grad)
        for bucket in _buckets(whole):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            total = self.sum(flat)
            for grad, part in zip(
                bucket, torch.split(total, [grad.numel() for grad in bucket]), strict=True
            ):
                grad.copy_(part.view_as(grad))

    def clip(self, parameters: Sequence[torch.Tensor], most: float) -> None:
        """Scale the gradients down together if their norm is greater."""
        if not self.sharded:
            torch.nn.utils.clip_grad_norm_(parameters, most)
            return
        kinds = by_kind([item.grad for item in parameters if item.grad is not None])
        norms = [gathered(torch.nn.utils.get_total_norm(grads)) for grads in kinds]
        scale = min(most / (float(torch.stack(norms).norm()) + 1e-6), 1.0)
        for grads in kinds:
            for grad in grads:
                grad.mul_(scale)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The elementwise sum of every rank's values."""
        if self._state is None:
            return values
        from accelerate.utils import reduce

        total: torch.Tensor = reduce(values.to(self._device), "sum")
        return total.to(values.device)

    def agreed(self, value: T) -> T:
        """The value that the first rank has; one that pickles."""
        if self._state is None:
            return value
        from accelerate.utils import broadcast_object_list

        said = [value]
        broadcast_object_list(said)
        return said[0]

    def wait(self) -> None:
        """Go on once every rank has come here."""
        if self._state is not None:
            self._state.wait_for_everyone()


def _leave() -> None:
    """Let go of the other ranks while there is an interpreter.

    Threads of gloo hold tensors for a while, and abort a process that has ended under them. Cycles
    are collected first, since the parts of sharded blocks keep those threads.
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _asked_for(plugin: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{plugin}", "").lower() == "true"


def _buckets(grads: Sequence[torch.Tensor]) -> Iterable[Sequence[torch.Tensor]]:
    some: list[torch.Tensor] = []
    size = 0
    for grad in grads:
        if some and size + grad.numel() > BUCKET:
            yield some
            some, size = [], 0
        some.append(grad)
        size += grad.numel()
    if some:
        yield some
