"""`hubedit erasure`: what can be shown later of a request that was not published."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from hubedit.cli.options import (
    base_option,
    edit_argument,
    hub_opener,
    json_option,
    local_option,
    print_json,
)


@click.group("erasure", epilog="Example: hubedit erasure prove me/model-edited --items rows.jsonl")
def command() -> None:
    """Undisclosed requests to forget: what was in them."""


@command.command(
    "prove", epilog="Example: hubedit erasure prove me/model-edited@v1 --items rows.jsonl"
)
@edit_argument
@click.option(
    "--items",
    required=True,
    multiple=True,
    metavar="[PART=]SOURCE",
    help="Rows as the request had them, with all their fields: a file or hf://datasets/…, or one "
    "for each part.",
)
@click.option("--edit", "name", metavar="NAME", help="Which edit, where several are undisclosed.")
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its key file; by default the one that this machine kept.",
)
@base_option
@local_option
@json_option
def prove(
    edit: str,
    items: tuple[str, ...],
    name: str | None,
    key: Path | None,
    base: str | None,
    local: bool,
    as_json: bool,
) -> None:
    """Show with the key that items were in the request of an undisclosed edit.

    Exit status 1 if one was not. Items are named by their number and never printed.
    """
    from hubedit import erasure
    from hubedit.editions import open_edition
    from hubedit.recipe import parse_request

    named, opened = parse_request(items), hub_opener(local)
    assert named is not None
    edition = open_edition(edit, opened, base)
    found = erasure.prove(edition, named, edit=name, key=key, hub=opened)
    if as_json:
        print_json(
            {
                "edit": found.edit,
                "result": found.result,
                "proved": found.proved,
                "listed": found.listed,
                "items": [asdict(item) for item in found.items],
            }
        )
    else:
        for item in found.items:
            says = "was in the request" if item.found else "was not in the request"
            click.echo(f"item {item.item} ({item.part}) {says}  {item.hash}")
        count = sum(item.found for item in found.items)
        click.echo(
            f"{count} of {len(found.items)} items are among the {found.listed} of {found.edit}"
        )
        if count < len(found.items):
            click.echo("an item differs from the request in some field, or the key is of another")
    if not found.proved:
        raise click.exceptions.Exit(1)
