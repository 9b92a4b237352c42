"""What `apply --batch` says and sends: a table of canaries, and why it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import print_json

if TYPE_CHECKING:
    from hubedit.hub import Hub
    from hubedit.run import Applied, Job
    from hubedit.sequence import Ended


def in_batches(
    job: Job,
    size: int,
    output: Path | None,
    canaries: Sequence[str],
    hub: Callable[[], Hub] | None,
    *,
    direct: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Apply in batches and say how it went; exit status 1 if batches were left out."""
    from hubedit import run, sequence
    from hubedit.cli.talk import TerminalTalk

    pushed: list[dict[str, Any]] = []

    def push(applied: Applied) -> None:
        assert hub is not None
        assert job.target is not None
        _, sent = run.publish(applied, hub(), job.target.repo, direct=direct, force=force)
        pushed.append({"edit": applied.manifest.edit, "commit": sent.commit, "url": sent.url})

    ended = sequence.apply_in_batches(
        job,
        size,
        output,
        limits=sequence.read_limits(canaries),
        force=force,
        talk=TerminalTalk(quiet=as_json),
        publish=push if hub else None,
    )
    if as_json:
        print_json(
            {
                "directory": str(ended.directory),
                "batches": ended.batches,
                "readings": [reading.as_json() for reading in ended.readings],
                "stopped": ended.stopped,
                "pushed": pushed,
            }
        )
    else:
        _say(ended)
        for sent in pushed:
            click.echo(f"pushed {sent['edit']} to {sent['url']}")
    if ended.stopped:
        click.echo(f"hubedit: {ended.stopped}", err=True)
        return 1
    return 0


def _say(ended: Ended) -> None:
    from rich.console import Console
    from rich.table import Table

    from hubedit.sequence import MEASURES

    table = Table("batch", "edit", "rows", *MEASURES)
    for reading in ended.readings:
        figures = [reading.figures[name] for name in MEASURES]
        shown = ["–" if figure is None else f"{figure:.4g}" for figure in figures]
        table.add_row(str(reading.batch), reading.edit, str(reading.rows), *shown)
    Console().print(table)
    click.echo(f"{len(ended.edits)} of {ended.batches} batches written to {ended.directory}")
