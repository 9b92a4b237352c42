"""`hubedit bench`: methods × models × numbers of edits or requests to forget, in one table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import hub_opener, json_option, local_option, print_json

if TYPE_CHECKING:
    from hubedit.benching import Matrix
    from hubedit.benching.cells import Cell
    from hubedit.cli.talk import TerminalTalk
    from hubedit.hookspecs import SmallModel
    from hubedit.manifest import Record


WIDTH = 110
"""Columns that a table takes at least, so that no figure is cut."""


class _Names(click.ParamType[list[str]]):
    name = "NAME,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """Names between commas."""
        if isinstance(value, list):
            return value
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        if not names:
            self.fail("give at least one name", param, ctx)
        return list(dict.fromkeys(names))


class _Sizes(click.ParamType[list[int]]):
    name = "N,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int]:
        """Whole numbers above zero between commas."""
        if isinstance(value, list):
            return value
        try:
            sizes = [int(text) for text in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not of the form 1,10,50", param, ctx)
        if min(sizes) < 1:
            self.fail("a number of edits is 1 or more", param, ctx)
        return list(dict.fromkeys(sizes))


@click.command(
    "bench", epilog="Example: hubedit bench --methods NAME,NAME --models facts-gpt2 --edits 1,10"
)
@click.option("--methods", required=True, type=_Names(), help="Names of methods.")
@click.option(
    "--models",
    "--model",
    "models",
    required=True,
    type=_Names(),
    help="Small models that plugins ship, or directories with cases.jsonl or with --forget.",
)
@click.option(
    "--edits",
    default="1,10,50",
    show_default=True,
    type=_Sizes(),
    help="How many facts are changed at once.",
)
@click.option(
    "--cases",
    metavar="FILE|hf://datasets/…|NAME",
    help="Cases for all models, instead of their own.",
)
@click.option(
    "--split", default="test", show_default=True, help="Which cases; dev is for choosing settings."
)
@click.option(
    "--forget",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Bench forgetting: a request of rows in parts, in place of a small model's own.",
)
@click.option(
    "--oracle",
    metavar="REPO[@REV]|DIR",
    help="With --forget: a model that was retrained without the forgotten data.",
)
@click.option("--reader", metavar="NAME", help="How the cases are written, such as zsre-answers.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help="How many cases each cell is scored on; by default 50, or the largest of --edits. Of "
    "forgetting: how many of each part, by default 300.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="A setting that is not the default (repeatable).",
)
@click.option("--fresh", is_flag=True, help="Make every cell anew, also those that are there.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the run.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Models at a time, or shares of the cells, each in a process of one thread. By default as "
    "many as there are cores if all models are small ones that plugins ship, else one.",
)
@click.option(
    "-o",
    "--output",
    default="bench",
    show_default=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where cells are kept, so that a run that was cut off goes on, and the result written.",
)
@local_option
@json_option
def command(
    methods: list[str],
    models: list[str],
    edits: list[int],
    cases: str | None,
    forget: Path | None,
    oracle: str | None,
    reader: str | None,
    settings: tuple[str, ...],
    output: Path,
    workers: int | None,
    local: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run every method on every model, and compare them in one table.

    Facts are changed in each number of --edits at once. Models that come with requests to forget,
    or any with --forget, are measured for how far a method forgets and what it keeps.

    Methods run with their default settings, or those that were chosen on the split dev; none may
    have been chosen on the cases that are reported (those of split test).
    """
    from hubedit.cli.talk import TerminalTalk
    from hubedit.plugins import load_plugins

    talk = TerminalTalk(quiet=as_json)
    given |= {"output": output, "settings": _settings(settings), "talk": talk}
    if oracle is not None and forget is None:
        raise click.UsageError("--oracle goes with --forget")
    if (workers or 1) > 1 and (given["threads"] or 1) > 1:
        raise click.UsageError("each of --workers runs on one thread; leave --threads out")
    offered = load_plugins().models()
    if workers is None:
        alone = local or cases is not None or oracle is not None or given["threads"] is not None
        alone = alone or not all(name in offered for name in models)
        workers = 1 if alone else os.cpu_count() or 1
    given["workers"] = workers
    if forget is not None or _come_with_requests(models, offered):
        if cases is not None or reader is not None:
            raise click.UsageError("--cases and --reader are of facts, and this is forgetting")
        from hubedit.cli.bench_forgetting import forgetting

        given |= {"forget": forget, "oracle": oracle}
        forgetting(methods, models, local=local, as_json=as_json, **given)
    else:
        given |= {"cases": cases, "reader": reader}
        _facts(methods, models, edits, local=local, as_json=as_json, **given)


def _come_with_requests(models: list[str], offered: Mapping[str, SmallModel]) -> bool:
    """Whether all models are small ones to forget with; some alone are a mistake."""
    some = [name for name in models if name in offered and offered[name].requests]
    if some and len(some) < len(models):
        raise click.UsageError(
            f"{', '.join(some)} come with requests to forget and the other models with facts to "
            "edit; bench them in two runs"
        )
    return bool(some)


def _facts(
    methods: list[str],
    models: list[str],
    edits: list[int],
    *,
    talk: TerminalTalk,
    workers: int,
    local: bool,
    as_json: bool,
    **given: Any,
) -> None:
    from hubedit.benching import bench, bench_in_parallel
    from hubedit.benching.table import markdown, picture

    def told(cell: Cell) -> None:
        words = cell.reason or f"{cell.seconds} s an edit, {cell.delta_bytes} bytes"
        talk.log(f"{cell.model} {cell.method} {cell.edits}: {cell.state} ({words})")

    given |= {"talk": talk, "done": told}
    if workers > 1 and len(models) > 1:
        if str(given["cases"] or "").startswith("hf://"):
            raise click.UsageError("--workers takes cases from files alone; leave it out here")
        matrix = bench_in_parallel(methods, models, edits, workers=workers, **given)
    else:
        matrix = bench(methods, models, edits, hub=hub_opener(local), **given)
    write_result(given["output"], matrix, picture(matrix), markdown(matrix))
    talk.log(f"written to {given['output']}")
    if as_json:
        print_json(matrix.model_dump(mode="json"))
        return
    _show(matrix)


def _settings(pairs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    from hubedit.errors import RecipeError
    from hubedit.recipe import parse_settings

    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        method, dot, setting = pair.partition(".")
        if not dot or "=" in method:
            raise RecipeError(f"--set {pair!r} is not of the form method.key=value")
        found.setdefault(method, {}).update(parse_settings([setting]))
    return found


def write_result(output: Path, found: Record, picture: bytes, page: str) -> None:
    """Write a finished bench: JSON, a page, a picture."""
    import json

    from hubedit.benching.matrix import RESULT

    text = json.dumps(found.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    contents = {"png": picture, "md": page.encode(), "json": f"{text}\n".encode()}
    for suffix, content in contents.items():
        partial = output / f".{RESULT}.{suffix}.partial"
        partial.write_bytes(content)
        partial.replace(output / f"{RESULT}.{suffix}")


def _show(matrix: Matrix) -> None:
    from rich.console import Console
    from rich.table import Table

    from hubedit.benching.table import MEANING, heads, line

    console = Console(markup=False, highlight=False)
    console.width = max(console.width, WIDTH)
    for column in matrix.models:
        table = Table(
            *heads(matrix)[1:],
            box=None,
            header_style="bold",
            title=f"{column.model}: {column.n} cases of {column.cases}, per cent",
            title_justify="left",
        )
        for cell in matrix.cells:
            if cell.model != column.model:
                continue
            if cell.state == "done":
                table.add_row(*line(matrix, cell)[1:])
        console.print(table)
        for cell in matrix.cells:
            if cell.model == column.model and cell.state != "done":
                console.print(f"{cell.method} {cell.edits}: {cell.state} ({cell.reason})")
    console.print(MEANING, style="dim")
