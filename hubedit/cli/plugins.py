"""`hubedit plugins`: what is installed, and what failed to load."""

from __future__ import annotations

import click

from hubedit.cli.options import json_option, print_json


@click.command("plugins", epilog="Example: hubedit plugins --json")
@json_option
def command(as_json: bool) -> None:
    """List the installed plugins with their distribution, version, methods and errors."""
    from hubedit.plugins import load_plugins

    infos = load_plugins().infos
    if as_json:
        print_json(
            [
                {
                    "name": info.name,
                    "distribution": info.distribution,
                    "version": info.version,
                    "methods": [method.name for method in info.methods],
                    "hooks": info.hooks,
                    "errors": info.errors,
                }
                for info in infos
            ]
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "plugin", "distribution", "methods", "hooks", "errors", box=None, header_style="bold"
    )
    for info in infos:
        table.add_row(
            info.name,
            f"{info.distribution} {info.version}",
            ", ".join(method.name for method in info.methods),
            ", ".join(info.hooks),
            "\n".join(info.errors),
        )
    Console(markup=False).print(table)
