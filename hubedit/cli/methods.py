"""`hubedit methods`: what can be done to a model, and how each is set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import json_option, print_json

if TYPE_CHECKING:
    from hubedit.method import Method
    from hubedit.plugins import PluginInfo


@click.command("methods", epilog="Example: hubedit methods --json")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the methods of all plugins; with NAME its settings, paper and limits."""
    from hubedit.plugins import load_plugins

    plugins = load_plugins()
    if name is not None:
        _one(*plugins.method(name), as_json)
        return
    found = [
        {
            "name": method.name,
            "kind": method.kind,
            "assurance": method.assurance,
            "architectures": sorted(method.architectures),
            "plugin": info.name,
            "summary": method.summary(),
        }
        for method, info in plugins.methods()
    ]
    if as_json:
        print_json(found)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "method", "kind", "assurance", "models", "what it does", box=None, header_style="bold"
    )
    for item in found:
        models = ", ".join(item["architectures"])
        table.add_row(
            str(item["name"]),
            str(item["kind"]),
            str(item["assurance"]),
            models,
            str(item["summary"]),
        )
    Console(markup=False).print(table)


def _one(method: type[Method[Any, Any]], info: PluginInfo, as_json: bool) -> None:
    schema = method.config_type().model_json_schema()
    if as_json:
        print_json(
            {
                "name": method.name,
                "kind": method.kind,
                "assurance": method.assurance,
                "architectures": sorted(method.architectures),
                "paper": method.paper,
                "limits": list(method.limits),
                "plugin": info.name,
                "summary": method.summary(),
                "row": method.row_type().__name__,
                "config": schema,
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    console.print(method.summary())
    models = ", ".join(sorted(method.architectures))
    console.print(
        f"\n{method.kind}, {method.assurance}; {models} models; rows of "
        f"{method.row_type().__name__}; plugin {info.name}"
    )
    if method.paper:
        console.print(method.paper)
    for limit in method.limits:
        console.print(f"- {limit}")
    table = Table("setting", "default", "what it is", box=None, header_style="bold")
    for key, field in method.config_type().model_fields.items():
        default = "required" if field.is_required() else repr(field.default)
        table.add_row(key, default, field.description or "")
    console.print()
    console.print(table)
