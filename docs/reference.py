"""The reference pages, made from the code when the docs are built, and the list of public names.

mkdocs build --strict               # makes the pages
python docs/reference.py            # writes docs/public-names.txt, when a test says so
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

NAMES = Path(__file__).parent / "public-names.txt"
MODULES = ("hubedit", "hubedit.testing", "hubedit.fixtures", "hubedit_demo.fixtures")


def commands() -> str:
    """Every verb with its help, those of plugins too."""
    from hubedit.cli import VERBS, cli

    lines = ["# Commands", "", "What `--help` prints, verb by verb.", ""]
    extra = [point for point in entry_points(group="hubedit.commands") if _is_ours(point)]
    context = click.Context(cli, info_name="hubedit")
    verbs = {name: cli.get_command(context, name) for name in VERBS}
    verbs |= {point.name: point.load() for point in extra}
    for name in sorted(verbs):
        lines += _help(verbs[name], f"hubedit {name}", "##")
    return "\n".join(lines)


def _help(command: Any, name: str, level: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, terminal_width=88, max_content_width=88)
    yield from (f"{level} {name}", "", "```text", command.get_help(context).strip(), "```", "")
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            found = command.get_command(context, verb)
            yield from _help(found, f"{name} {verb}", level + "#")


def hooks() -> str:
    """Every hook with its arguments."""
    from hubedit import hookspecs

    lines = ["# Hooks", ""]
    lines.append(
        "A plugin implements a hook by a function of its name, marked `@hubedit.hookimpl`.\n"
    )
    for name, spec in sorted(vars(hookspecs).items()):
        if name.startswith("hubedit_"):
            first = spec.hubedit_spec["firstresult"]
            asked = "The first answer that is not None counts." if first else "All are asked."
            lines += [f"### {name}", "", "```text", f"{name}{_arguments(spec)}", "```", ""]
            lines += [inspect.cleandoc(spec.__doc__ or ""), "", asked, ""]
    return "\n".join(lines)


def settings() -> str:
    """The settings of every method that comes with hubedit, and the keys of a recipe."""
    from hubedit.plugins import load_plugins
    from hubedit.policy import Gate, Policy
    from hubedit.recipe import Recipe

    lines = ["# Settings", ""]
    lines.append(
        "`config:` in a recipe, or `--set key=value`; `hubedit methods NAME` prints them.\n"
    )
    for method, info in load_plugins().methods():
        if info.distribution == "hubedit":
            lines += [f"## {method.name}", "", method.summary(), ""]
            lines += [
                f"{method.kind}, {method.assurance}; rows of `{method.row_type().__name__}`.",
                "",
            ]
            lines += _table(method.config_type())
    lines += ["## The recipe", "", *_table(Recipe)]
    lines += ["## The policy", "", *_table(Policy), "Each of `gates`:", "", *_table(Gate)]
    return "\n".join(lines)


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        kind = inspect.formatannotation(field.annotation).replace("typing.", "")
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        said = " ".join((field.description or "").split())
        yield f"| `{name}` | `{_cell(kind)}` | {_cell(default)} | {_cell(said)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def names() -> str:
    """Every public name with its docstring."""
    lines = ["# Public names", ""]
    lines.append("What follows is stable: see [the contract](../contract.md#what-is-stable).\n")
    for module in MODULES:
        lines += [f"## {module}", ""]
        for name, thing in public(import_module(module)):
            lines += [f"### {name}", "", "```text", _signature(name, thing), "```", ""]
            lines += ["```text", inspect.cleandoc(thing.__doc__ or ""), "```", ""]
            lines += _members(thing) if inspect.isclass(thing) else []
    return "\n".join(lines)


def public(module: Any) -> Iterator[tuple[str, Any]]:
    """The public names of a module that are classes, functions or fixtures."""
    listed = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items() if type(thing).__name__.startswith("Fixture")
    ]
    for name in sorted(listed):
        thing = getattr(module, name)
        if callable(thing) or type(thing).__name__.startswith("Fixture"):
            yield name, thing


def _signature(name: str, thing: Any) -> str:
    if inspect.isclass(thing):
        bases = [base.__name__ for base in thing.__bases__ if base.__name__ not in ("object",)]
        return f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    if type(thing).__name__.startswith("Fixture"):
        return f"fixture {name}"
    return f"{name}{_arguments(thing)}"


def _arguments(thing: Any) -> str:
    return str(inspect.signature(thing)).replace("'", "")


def _members(thing: type) -> Iterator[str]:
    own = {
        name: member
        for name, member in vars(thing).items()
        if not name.startswith("_")
        and inspect.isfunction(member)
        and not name.startswith("pytest_")
    }
    if not own or issubclass(thing, BaseException):
        return
    yield from ("| method | what it does |", "|---|---|")
    for name, member in own.items():
        said = " ".join((member.__doc__ or "").split("\n\n")[0].split())
        yield f"| `{name}` | {_cell(said)} |"
    yield ""


def _is_ours(point: Any) -> bool:
    return point.dist is not None and point.dist.name == "hubedit"


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/hooks.md": hooks,
    "reference/settings.md": settings,
    "reference/names.md": names,
}


def on_files(files: Any, config: Any) -> Any:
    """Put the pages among those of the docs: mkdocs calls this."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page() + "\n"))
    return files


def listed() -> str:
    """The public names, one a line: `module.name`."""
    found = [
        f"{module}.{name}"
        for module in MODULES
        for name in getattr(import_module(module), "__all__", None)
        or [name for name, _ in public(import_module(module))]
    ]
    return "\n".join(sorted(found)) + "\n"


def main() -> None:
    """Write the list of public names."""
    NAMES.write_text(listed(), encoding="utf-8")
    sys.stdout.write(f"{NAMES}\n")


if __name__ == "__main__":
    main()
