"""What `hubedit eval --forget` prints and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hubedit.cli.options import print_json

if TYPE_CHECKING:
    from hubedit.gathering import Named
    from hubedit.measured import Forgetting


_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])


def forgetting_options(command: _CommandT) -> _CommandT:
    """The options of an evaluation of what was forgotten."""
    options = (
        click.option(
            "--forget",
            multiple=True,
            metavar="[PART=]SOURCE",
            help="Measure how far this request is forgotten: a file or hf://datasets/… of rows in "
            "their parts, or one for each part.",
        ),
        click.option(
            "--oracle",
            metavar="REPO[@REV]|DIR",
            help="With --forget: a model that was retrained without the forgotten data.",
        ),
        click.option(
            "--gate",
            "gates",
            multiple=True,
            metavar="NAME=LIMIT",
            help="With --forget: fail unless a measure or curve keeps a limit (repeatable).",
        ),
        click.option(
            "--robust",
            is_flag=True,
            help="With --forget: also quantise, train again, and ask in other ways.",
        ),
        click.option(
            "--attach",
            is_flag=True,
            help="With --forget: write the figures into the edit in DIR, its page and its card.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def forgotten(
    edit: str, request: Named, *, output: Path | None, attach: bool, as_json: bool, **given: Any
) -> None:
    """Measure, print, write, and exit with 1 if a gate was not kept."""
    from hubedit import revisions
    from hubedit.cli.talk import TerminalTalk
    from hubedit.evaluating.forgotten import evaluate_forgetting
    from hubedit.evaluating.forgotten_table import markdown
    from hubedit.forgetting.cases import LIMIT

    if output is not None:
        revisions.check_output(output)
    talk = TerminalTalk(quiet=as_json)
    given["limit"] = given["limit"] or LIMIT
    found = evaluate_forgetting(edit, request, talk=talk, attach=attach, **given)
    value = {**found.model_dump(mode="json"), "passed": found.passed}
    if output is not None:
        with revisions.finished_directory(output) as work:
            text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
            (work / "forgetting.json").write_text(text + "\n", encoding="utf-8")
            (work / "forgetting.md").write_text(markdown(found), encoding="utf-8")
        talk.log(f"written to {output}")
    if attach:
        talk.log(f"written into the newest edit of {edit}")
    if as_json:
        print_json(value)
    else:
        _show(found)
    if not found.passed:
        raise click.exceptions.Exit(1)


def _show(found: Forgetting) -> None:
    from rich.console import Console
    from rich.table import Table

    from hubedit.measured import (
        HEADS,
        curve_heads,
        curve_rows,
        gate_lines,
        made_of_lines,
        measure_rows,
    )

    asked = ", ".join(f"{count} {part}" for part, count in found.parts.items())
    console = Console(markup=False, highlight=False)
    table = Table(
        *HEADS,
        box=None,
        header_style="bold",
        title=f"{found.after}, beside {found.before}: {asked}",
        title_justify="left",
    )
    for cells in measure_rows(found):
        table.add_row(*cells)
    console.print(table)
    for line in made_of_lines(found):
        console.print(line, style="dim", soft_wrap=True)
    if found.curves:
        curve = Table(*curve_heads(found), box=None, header_style="bold")
        for cells in curve_rows(found):
            curve.add_row(*cells)
        console.print("\nExtraction strength of forgotten answers under treatment")
        console.print(curve)
    console.print(found.reference, style="dim", soft_wrap=True)
    for kept, line in gate_lines(found):
        console.print(line, style="green" if kept else "red", soft_wrap=True)
