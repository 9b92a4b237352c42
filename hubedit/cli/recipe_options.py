"""The recipe as arguments: RECIPE and the flags that stand for its keys, shared by its verbs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hubedit.cli.options import to_option

if TYPE_CHECKING:
    from hubedit.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])


def _method_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from hubedit.plugins import load_plugins

    return [
        method.name for method, _ in load_plugins().methods() if method.name.startswith(incomplete)
    ]


_ARGUMENTS: tuple[Callable[[Any], Any], ...] = (
    click.argument("recipe", required=False, type=click.Path(dir_okay=False)),
    click.option(
        "--plugin",
        "--method",
        "plugin",
        metavar="NAME",
        shell_complete=_method_names,
        help="Name of the method.",
    ),
    click.option("--base", metavar="REPO[@REV]|DIR", help="The model to start from."),
    click.option(
        "--request",
        multiple=True,
        metavar="[PART=]SOURCE",
        help="Rows to change: a .jsonl, .json, .csv, .parquet or .txt file, or hf://datasets/…; "
        "for parts (forget, retain, normal, holdout) in sources of their own, one for each.",
    ),
    click.option(
        "--reader",
        metavar="NAME",
        help="How the rows are written, such as zsre-answers; by default each tells its own.",
    ),
    click.option("--prompt", metavar="TEXT", help="A prompt with {} where the subject goes."),
    click.option("--subject", metavar="TEXT", help="What the fact is about."),
    click.option("--target", metavar="TEXT", help="The answer the edited model shall give."),
    click.option("--true-target", metavar="TEXT", help="The answer before the edit."),
    click.option(
        "--paraphrase",
        multiple=True,
        metavar="TEXT",
        help="A whole prompt that should follow (repeatable).",
    ),
    click.option(
        "--neighbour",
        multiple=True,
        metavar="TEXT",
        help="A whole prompt on another subject that should stay (repeatable).",
    ),
    click.option(
        "--attribute",
        multiple=True,
        metavar="TEXT",
        help="A whole prompt on another fact of the subject that should stay (repeatable).",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the method (repeatable).",
    ),
    click.option("--corpus", metavar="FILE|hf://datasets/…", help="Text for statistics."),
    click.option("--device", help="Where the method works, such as cpu or cuda:0."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="What the method computes in.",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="The one source of randomness."),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads of the run; the manifest records them.",
    ),
    click.option(
        "--disclose",
        type=click.Choice(["full", "none"]),
        help="What is published of the request; by default none of what is forgotten.",
    ),
    click.option("--ticket", metavar="TEXT", help="Number of the request; published."),
    click.option("--ground", metavar="TEXT", help="Its legal ground, as Art. 17 GDPR; published."),
    click.option(
        "--requester", metavar="TEXT", help="Role of who asks, and no person's name; published."
    ),
    click.option(
        "--allow-embeddings",
        is_flag=True,
        default=None,
        help="Let an undisclosed change touch embeddings and head, whose rows can tell it.",
    ),
    to_option,
)
"""Everything of a recipe, in the order of `--help`."""


def recipe_arguments(function: F) -> F:
    """Give a command the argument `recipe` and the keywords that `read_arguments` takes."""
    for decorate in reversed(_ARGUMENTS):
        function = decorate(function)
    return function


def read_arguments(path: str | None, given: dict[str, Any]) -> Recipe:
    """Put the file and the flags together; flags win."""
    from hubedit.errors import RecipeError
    from hubedit.recipe import (
        RECIPE_FILE,
        make_recipe,
        parse_request,
        parse_settings,
        read_recipe,
    )

    keys: dict[str, Any] = {}
    if path is not None or Path(RECIPE_FILE).is_file():
        keys = read_recipe(Path(path or RECIPE_FILE))
    row = {
        "prompt": given.pop("prompt"),
        "subject": given.pop("subject"),
        "target": given.pop("target"),
        "true_target": given.pop("true_target"),
        "paraphrases": list(given.pop("paraphrase")) or None,
        "neighbours": list(given.pop("neighbour")) or None,
        "attributes": list(given.pop("attribute")) or None,
    }
    row = {key: value for key, value in row.items() if value is not None}
    given["request"] = parse_request(given["request"])
    settings = parse_settings(given.pop("settings"))
    said = {key: given.pop(key) for key in ("ticket", "ground", "requester")}
    keys |= {key: value for key, value in given.items() if value is not None}
    if any(value is not None for value in said.values()):
        known = keys.get("reference") or {}
        keys["reference"] = {**known, **{k: v for k, v in said.items() if v is not None}}
    if settings:
        same_plugin = given.get("plugin") is None or "config" in keys
        keys["config"] = {**(keys.get("config") or {}), **settings} if same_plugin else settings
    if row:
        if given.get("request") is not None:
            raise RecipeError(
                "give the fact by --prompt, --subject and --target, or by --request, not both"
            )
        keys["request"] = [row]
    return make_recipe(keys)
