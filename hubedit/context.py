"""What the host lends to a method for one run, and how a run talks to its user."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hubedit.artifacts import ArtifactStore, canonical_json
from hubedit.errors import MethodError, PluginError
from hubedit.maps import map_record
from hubedit.matrices import MapRecord
from hubedit.method import Artifacts, Corpus, Earlier, ProgressBar

if TYPE_CHECKING:
    import torch

    from hubedit.editable import LoadedModel
    from hubedit.updates import StoredTensor


KEPT = ("torch.float32", "torch.int64")
"""Types of tensors that a method may keep."""


def rank() -> int:
    """Which of the processes this is that a launcher started for one run; 0 of a single one."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def device_of(device: str) -> str:
    """The device of this process: of several on one machine, each has its own GPU."""
    if device == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


class Talk(Protocol):
    """How a run tells its user what it does."""

    def log(self, message: str) -> None:
        """Say something."""

    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[ProgressBar]:
        """Show that something long goes on."""


class Check(Protocol):
    """What is measured of the model before and after, and may refuse an edit."""

    def start(self, model: LoadedModel) -> None:
        """Measure what the edit starts from."""

    def end(self, model: LoadedModel, changed: Mapping[str, StoredTensor]) -> Mapping[str, Any]:
        """Measure the rebuilt model; `changed` are its tensors that are other than the base's.

        Raises:
            MethodError: the edit is refused.
        """


class Silent:
    """A run that says nothing."""

    class _Bar:
        def advance(self, steps: int = 1, **figures: float) -> None:
            """Move on."""

    def log(self, message: str) -> None:
        """Say nothing."""

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[ProgressBar]:
        """Show nothing."""
        yield self._Bar()


@dataclass
class Run:
    """What the host lends to a method for one run; see `hubedit.RunContext`."""

    generator: torch.Generator
    seed: int
    corpus: Corpus | None
    force: bool
    talk: Talk
    artifacts: Artifacts = field(default_factory=ArtifactStore)
    recorded: dict[str, Any] = field(default_factory=dict)
    overruled: list[str] = field(default_factory=list)
    figures: list[MapRecord] = field(default_factory=list)
    disclosed: bool = True
    earlier: Sequence[Earlier] = ()
    kept: dict[str, torch.Tensor] = field(default_factory=dict)

    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[ProgressBar]:
        """Show a progress bar on a terminal; silent elsewhere."""
        return self.talk.progress(label, total)

    def log(self, message: str) -> None:
        """Tell the user something."""
        self.talk.log(message)

    def record(self, key: str, value: Any) -> None:
        """Put a JSON value into the manifest."""
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            raise PluginError(f"the method recorded {key!r}, which is not JSON: {error}") from error
        self.recorded[key] = value

    def figure(
        self,
        name: str,
        values: Sequence[Sequence[float]],
        *,
        rows: Sequence[str],
        columns: Sequence[str],
        caption: str,
    ) -> None:
        """Show a small matrix on the review page."""
        if any(known.name == name for known in self.figures):
            raise PluginError(f"the method shows two figures named {name!r}; give each its own")
        self.figures.append(map_record(name, values, rows, columns, caption))

    def keep(self, name: str, value: torch.Tensor, *, harmless: bool = False) -> None:
        """Put a tensor into the edit's folder, for later edits of the same method."""
        if not self.disclosed and not harmless:
            raise MethodError(
                f"the method would keep {name!r} in the edit's folder, and the request is not "
                "disclosed; publish it on purpose with --disclose full, or report the method"
            )
        if str(value.dtype) not in KEPT or not bool(value.isfinite().all()):
            raise MethodError(
                f"the method keeps {name!r}, a tensor of {value.dtype}; kept tensors are finite, "
                f"of {' or '.join(KEPT)}"
            )
        self.kept[name] = value.detach().cpu().contiguous().clone()

    def overridden(self, reason: str) -> None:
        """Record that a guard was overruled."""
        self.overruled.append(reason)
        self.talk.log(f"forced: {reason}")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with a fixed number of torch threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
