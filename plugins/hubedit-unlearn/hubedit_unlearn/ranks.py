"""One process or several that train one model together, each on a part of every step's batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

import hubedit

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
BUCKET = 1 << 25
"""Elements that are summed over the ranks at once."""


class Ranks:
    """The ranks of one run, as a launcher such as `accelerate launch` starts them.

    All ranks draw the same examples and hold the same weights; each takes its part of a step's
    batches, and the gradients are summed (data parallelism). With one rank nothing is sent.

    Raises:
        MethodError: the launcher shards the weights, which must be whole here.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._accelerator: Accelerator | None = None
        if self.count > 1:
            for name in ("FSDP", "DEEPSPEED"):
                if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true":
                    raise hubedit.MethodError(
                        f"{name} was asked for, and it leaves every process a part of each weight, "
                        "while looks, reference states and the finished change are of whole ones; "
                        "launch without it (--multi_gpu): every process holds the model and "
                        "gradients are summed; adaptation=lora or accumulation save memory"
                    )
            from accelerate import Accelerator

            self._accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")

    def mine(self, batches: Sequence[T]) -> Sequence[T]:
        """The batches of a step that this rank takes."""
        return batches[self.index :: self.count]

    def sum_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Put into every parameter's `grad` the sum over all ranks."""
        if self._accelerator is None:
            return
        every = list(parameters)
        for parameter in every:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in every if parameter.grad is not None]
        for bucket in _buckets(grads):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            total = self.sum(flat)
            for grad, part in zip(
                bucket, torch.split(total, [grad.numel() for grad in bucket]), strict=True
            ):
                grad.copy_(part.view_as(grad))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The elementwise sum of every rank's values."""
        if self._accelerator is None:
            return values
        total: torch.Tensor = self._accelerator.reduce(values, "sum")
        return total

    def agreed(self, text: str) -> str:
        """The text that the first rank has."""
        if self._accelerator is None:
            return text
        from accelerate.utils import broadcast_object_list

        said = [text]
        broadcast_object_list(said)
        return said[0]

    def wait(self) -> None:
        """Go on once every rank has come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


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
