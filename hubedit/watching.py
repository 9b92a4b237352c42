"""Watches a method while it runs: stops it half-way, and counts the copies of weights it holds."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    import torch


SMALL = 8
"""A matrix with a shorter side is not told from factors of low rank, so it is not counted."""


class Steps:
    """Counts what the code of some packages calls, and interrupts it at a given call."""

    def __init__(self, packages: Set[str], stop_at: int | None = None) -> None:
        self.packages = packages
        self.stop_at = stop_at
        self.taken = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count in this `with`.

        Raises:
            KeyboardInterrupt: at call number `stop_at`, as Ctrl-C would.
        """
        before = sys.getprofile()
        sys.setprofile(self._step)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _step(self, frame: FrameType, event: str, _: Any) -> None:
        owner = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if event in ("call", "c_call") and owner in self.packages:
            self.taken += 1
            if self.taken == self.stop_at:
                raise KeyboardInterrupt


class Held(TorchDispatchMode):
    """Counts tensors of the shapes of a model's weights that are alive beside the weights.

    `peak` is the most copies of a weight there were at once, on average over the weights of one
    shape; a transpose counts as the same shape, a view as its tensor.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        TorchDispatchMode.__init__(self)
        self._model = model
        matrices = (one for one in model.parameters() if one.ndim > 1 and min(one.shape) >= SMALL)
        self._shapes = Counter(_key(one) for one in matrices)
        self._alive: dict[int, tuple[int, ...]] = {}
        self._now: Counter[tuple[int, ...]] = Counter()
        self._own = [one.untyped_storage() for one in model.parameters()]
        self.peak = 0.0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and take note of the tensors it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if hasattr(tensor, "untyped_storage"):
                self._note(tensor)
        return made

    def _note(self, tensor: torch.Tensor) -> None:
        key = _key(tensor)
        storage = tensor.untyped_storage()
        known = id(storage) in self._alive or any(storage is own for own in self._own)
        if key not in self._shapes or known:
            return
        self._alive[id(storage)] = key
        self._now[key] += 1
        self.peak = max(self.peak, self._now[key] / self._shapes[key])
        weakref.finalize(storage, self._gone, id(storage))

    def _gone(self, number: int) -> None:
        self._now[self._alive.pop(number)] -= 1

    def left(self) -> int:
        """How many such tensors are alive now that are no parameter or gradient of the model."""
        gc.collect()
        kept = {id(one.untyped_storage()) for one in self._model.parameters()}
        return len(set(self._alive) - kept)


def _key(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(sorted(tensor.shape))
