"""`hubedit bisect`: the edit that changed an answer."""

from __future__ import annotations

from dataclasses import asdict

import click

from hubedit.cli.options import (
    base_option,
    edit_argument,
    hub_opener,
    json_option,
    local_option,
    print_json,
)


@click.command(
    "bisect", epilog="Example: hubedit bisect me/gpt2-edited 'Paris is the capital of' France"
)
@edit_argument
@click.argument("prompt")
@click.argument("target")
@base_option
@local_option
@json_option
def command(
    edit: str, prompt: str, target: str, base: str | None, local: bool, as_json: bool
) -> None:
    """Find the edit from which on the answer to PROMPT is no longer TARGET."""
    from hubedit.bisecting import bisect
    from hubedit.cli.talk import TerminalTalk
    from hubedit.editions import edits_of
    from hubedit.errors import RequestError

    if not prompt.strip() or not target.strip():
        raise RequestError("prompt and target are both needed; ask something")
    edition = edits_of(edit, hub_opener(local), base)
    found = bisect(edition, prompt, target, TerminalTalk(quiet=as_json))
    if as_json:
        name = found.edit.name if found.edit else None
        asked = [asdict(one) for one in found.asked]
        print_json({"height": found.height, "edit": name, "asked": asked})
        return
    for one in sorted(found.asked, key=lambda one: one.height):
        click.echo(f"{'good' if one.good else 'bad '}  height {one.height}: {one.answer}")
    if found.height is None:
        click.echo(f"every height that was asked answers {target!r}")
    elif found.edit is None:
        click.echo(f"the base itself does not answer {target!r}")
    else:
        click.echo(f"broken by {found.edit.name} (height {found.height}): {found.edit.summary}")
