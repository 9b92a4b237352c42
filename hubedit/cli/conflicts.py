"""`hubedit conflicts`: where the edits of a stack meet."""

from __future__ import annotations

from dataclasses import asdict

import click

from hubedit.cli.options import edit_argument, hub_opener, json_option, local_option, print_json


@click.command("conflicts", epilog="Example: hubedit conflicts me/facts-gpt2-edited@v5")
@edit_argument
@local_option
@json_option
def command(edit: str, local: bool, as_json: bool) -> None:
    """List pairs of edits that change one tensor or speak of one subject."""
    from hubedit.conflicts import conflicts
    from hubedit.editions import edits_of

    found = conflicts(edits_of(edit, hub_opener(local)))
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        parts = []
        if one.tensor is not None:
            cosine = "" if one.cosine is None else f", cosine {one.cosine:+.2f}"
            parts.append(f"{one.tensor}{cosine}")
        if one.subjects:
            parts.append("both on " + ", ".join(one.subjects))
        click.echo(f"{one.lower}  {one.upper}  {'; '.join(parts)}")
    if not found:
        click.echo("no two edits meet", err=True)
