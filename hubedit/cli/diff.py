"""`hubedit diff`: what one model has that another lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubedit.cli.options import (
    base_option,
    html_option,
    hub_opener,
    json_option,
    local_option,
    print_json,
    write_page,
)

if TYPE_CHECKING:
    from hubedit.comparison import Comparison


@click.command(
    "diff", epilog="Example: hubedit diff me/facts-gpt2-edited@v1 me/facts-gpt2-edited@v2"
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@base_option
@html_option
@local_option
@json_option
def command(
    a: str, b: str, base: str | None, html: Path | None, local: bool, as_json: bool
) -> None:
    """Compare A with B, each REPO[@REV] or DIR: an edit repository, or a plain model."""
    from hubedit.comparison import compare

    found = compare(a, b, hub_opener(local), base)
    if html is not None:
        from hubedit.report import of_comparison, render

        write_page(html, render(of_comparison(found)))
    if as_json:
        print_json(found.as_json())
        return
    _edits(found)
    if found.tensors:
        _table(found)
    for path in found.files:
        click.echo(f"{path} differs")
    share = found.elements_changed / found.elements_total if found.elements_total else 0
    click.echo(
        f"{len(found.tensors)} of {found.tensors_total} tensors differ: "
        f"{found.elements_changed:,} of {found.elements_total:,} elements ({share:.2%})"
    )


def _edits(found: Comparison) -> None:
    if not found.same_base:
        click.echo(f"A is made of {found.base_a}, B of {found.base_b}")
    for letter, entries in (("A", found.only_a), ("B", found.only_b)):
        for entry in entries:
            click.echo(f"only {letter} has {entry.name}: {entry.summary}")
    if found.common:
        click.echo(f"both have {', '.join(entry.name for entry in found.common)}")


def _table(found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("tensor", overflow="fold", min_width=20)
    for title in ("shape", "dtype", "changed", "‖B−A‖/‖A‖", "rank", "kind"):
        figures = title in ("changed", "‖B−A‖/‖A‖", "rank")
        table.add_column(title, justify="right" if figures else "left", no_wrap=True)
    for item in found.tensors:
        table.add_row(*item.cells())
    Console(markup=False, highlight=False).print(table)
