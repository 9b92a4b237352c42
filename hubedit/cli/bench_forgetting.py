"""What `hubedit bench` prints and writes of requests to forget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.bench import WIDTH, write_result
from hubedit.cli.options import hub_opener, print_json

if TYPE_CHECKING:
    from hubedit.benching import ForgottenMatrix
    from hubedit.benching.forgotten import ForgottenCell
    from hubedit.cli.talk import TerminalTalk


def forgetting(
    methods: list[str],
    models: list[str],
    *,
    talk: TerminalTalk,
    workers: int,
    local: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run, write and print a bench of forgetting."""
    from hubedit.benching import bench_forgetting, bench_forgetting_in_parallel
    from hubedit.benching.forgotten_table import markdown, picture

    def told(cell: ForgottenCell) -> None:
        took = "" if cell.seconds is None else f" in {cell.seconds:.0f} s"
        words = f" ({cell.reason})" if cell.reason else ""
        talk.log(f"{cell.model} {cell.request} {cell.method}: {cell.state}{took}{words}")

    given |= {"talk": talk, "done": told}
    if workers > 1:
        oracle = given["oracle"]
        if local or (oracle is not None and not Path(oracle).expanduser().is_dir()):
            raise click.UsageError("--workers takes an oracle from a directory; leave it out here")
        matrix = bench_forgetting_in_parallel(methods, models, workers=workers, **given)
    else:
        matrix = bench_forgetting(methods, models, hub=hub_opener(local), **given)
    write_result(given["output"], matrix, picture(matrix), markdown(matrix))
    talk.log(f"written to {given['output']}")
    if as_json:
        print_json({**matrix.model_dump(mode="json"), "passing": matrix.passing()})
        return
    _show(matrix)


def _show(matrix: ForgottenMatrix) -> None:
    from rich.console import Console
    from rich.table import Table

    from hubedit.benching.forgotten_table import (
        MEANING,
        by_request,
        heads,
        line,
        notes,
        title,
        verdict,
    )

    console = Console(markup=False, highlight=False)
    console.width = max(console.width, WIDTH)
    for asked, cells in by_request(matrix):
        console.print(title(asked), style="italic", soft_wrap=True)
        table = Table(*heads(matrix), box=None, header_style="bold")
        for cell in cells:
            if cell.state == "done":
                table.add_row(*line(matrix, cell))
        console.print(table)
        for cell in cells:
            if cell.state != "done":
                console.print(f"{cell.method}: {cell.state} ({cell.reason})")
    for note in notes(matrix):
        console.print(note, style="dim", soft_wrap=True)
    console.print(MEANING, style="dim")
    console.print(verdict(matrix))
