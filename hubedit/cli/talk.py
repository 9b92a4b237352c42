"""How a run talks to a person: lines and bars on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from hubedit.method import ProgressBar


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Move on by `steps` and show the figures beside the bar."""
        shown = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
        self._progress.update(self._task, advance=steps, figures=shown)


class TerminalTalk:
    """Lines and progress bars on stderr; bars only where it is a terminal."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.console: Console = Console(stderr=True, highlight=False)
        self._quiet = quiet

    def log(self, message: str) -> None:
        """Print a line."""
        if not self._quiet:
            self.console.print(message, style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[ProgressBar]:
        """Show a bar while the `with` lasts."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        off = self._quiet or not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=off) as progress:
            yield _Bar(progress, progress.add_task(label, total=total, figures=""))
