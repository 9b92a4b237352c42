"""`hubedit plugins`: what is installed and what failed to load; new ones, checked ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubedit.cli.options import json_option, print_json

if TYPE_CHECKING:
    from hubedit.plugins import PluginInfo


@click.group("plugins", invoke_without_command=True, epilog="Example: hubedit plugins --json")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the installed plugins with their distribution, version, methods and errors."""
    if context.invoked_subcommand is not None:
        return
    from hubedit.listing import listing

    found = listing()
    if as_json:
        print_json(found)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "plugin", "distribution", "methods", "hooks", "errors", box=None, header_style="bold"
    )
    for item in found:
        table.add_row(
            item["name"],
            f"{item['distribution']} {item['version']}",
            ", ".join(item["methods"]),
            ", ".join(item["hooks"]),
            "\n".join(item["errors"]),
        )
    Console(markup=False).print(table)


def _find(name: str) -> PluginInfo:
    from hubedit.errors import PluginError, near_misses
    from hubedit.plugins import load_plugins

    infos = {info.name: info for info in load_plugins().infos}
    if name not in infos:
        raise PluginError(f"no plugin named {name!r} is installed; {near_misses(name, infos)}")
    return infos[name]


@command.command("info", epilog="Example: hubedit plugins info mine")
@click.argument("name")
@json_option
def info(name: str, as_json: bool) -> None:
    """Say where the plugin NAME comes from, what it offers, and how long its import takes."""
    import subprocess
    import sys
    import time

    from hubedit.origins import files_sha256

    found = _find(name)
    module = found.module.__name__ if found.module is not None else None
    seconds = None
    if module is not None:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = time.perf_counter() - began
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)
        seconds = round(max(time.perf_counter() - began - bare, 0.0), 3)
    place = getattr(found.module, "__file__", None)
    said = {
        **found.as_json(),
        "module": module,
        "file": place,
        "sha256": files_sha256(found.module) if found.module is not None else None,
        "import_seconds": seconds,
    }
    if as_json:
        print_json(said)
        return
    for key, value in said.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{key:15} {shown if shown not in (None, '') else '–'}")


@command.command("check", epilog="Example: hubedit plugins check mine")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--only",
    metavar="[METHOD: ]WORDS",
    multiple=True,
    help="Test promises that hold these words alone.",
)
@json_option
def check(names: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> None:
    """Hold the methods of the plugins NAME, or of all, to the contract of every method."""
    from dataclasses import asdict

    from hubedit import checking
    from hubedit.plugins import load_plugins

    if names:
        infos = [_find(name) for name in names]
    else:
        infos = [info for info in load_plugins().infos if info.methods or info.errors]
    promises = checking.check(infos, only)
    broken = checking.broken(promises)
    if as_json:
        print_json([asdict(promise) for promise in promises])
    else:
        for promise in promises:
            mark = "kept  " if promise.kept else "BROKEN"
            reason = f": {promise.reason}" if promise.reason else ""
            of = f"{promise.plugin}, {promise.method}" if promise.method else promise.plugin
            click.echo(f"{mark} {of}: {promise.promise}{reason}")
        click.echo(f"{len(promises) - len(broken)} of {len(promises)} promises kept", err=True)
    if broken:
        raise click.exceptions.Exit(1)


@command.command("new", epilog="Example: hubedit plugins new hubedit-mine")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    "parent",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Directory to put the project into.",
)
@json_option
def new(name: str, parent: Path, as_json: bool) -> None:
    """Write a plugin project NAME (hubedit-…): a method that works, with its tests."""
    from hubedit.scaffold import write_project

    directory = write_project(name, parent)
    if as_json:
        files = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*"))
        print_json({"directory": str(directory), "files": files})
        return
    click.echo(str(directory))
    plugin = name.removeprefix("hubedit-")
    click.echo(
        f"next: pip install -e '{directory}[test]'; hubedit plugins check {plugin}", err=True
    )
