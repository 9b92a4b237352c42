"""`hubedit revert`: an edit is taken back, the newest one with proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import (
    base_option,
    direct_option,
    dry_run_option,
    hub_opener,
    json_option,
    local_option,
    no_probes_option,
    print_json,
    revision_output_option,
)

if TYPE_CHECKING:
    from hubedit.editions import Edition


@click.command("revert", epilog="Example: hubedit revert me/facts-gpt2-edited")
@click.argument("edit", metavar="REPO|DIR")
@revision_output_option
@click.option(
    "--edit",
    "which",
    metavar="NAME|NUMBER",
    help="Which edit, by its name or its number from the bottom; the newest if not given.",
)
@no_probes_option
@direct_option
@base_option
@local_option
@dry_run_option
@json_option
def command(
    edit: str,
    output: Path | None,
    which: str | None,
    no_probes: bool,
    direct: bool,
    base: str | None,
    local: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the newest edit of REPO back by a pull request that proves the bits from before.

    With --edit another one is taken out from under those that follow it. Those that touch none of
    its tensors keep their bits; low-rank updates of the same tensors are added anew, and their
    questions are asked again.
    """
    from hubedit.cli.restack import check_place, propose, publish_restacked
    from hubedit.editions import edits_of
    from hubedit.restacking import find_edit
    from hubedit.reverting import prove, reverted

    hub = hub_opener(local)
    check_place(edit, output, dry_run=dry_run)
    edition = edits_of(edit, hub, base)
    index = edition.stack.height - 1 if which is None else find_edit(edition, which)
    if index < edition.stack.height - 1:
        made = _taken_out(edition, index, ask=not no_probes, quiet=as_json)
        publish_restacked(made, edit, output, hub, direct=direct, dry_run=dry_run, as_json=as_json)
        return
    proof = prove(edition)
    said: dict[str, Any] = {"reverts": proof.entry.name, "result": proof.result}
    if dry_run:
        if as_json:
            print_json(said)
        else:
            click.echo(f"would take {proof.entry.name} back; the result is {proof.result}")
        return
    with reverted(edition, output) as revision:
        said |= propose(revision, edit, hub, body=proof.markdown(), direct=direct)
    if as_json:
        print_json(said)
        return
    click.echo(f"{proof.entry.name} is taken back: {proof.result}, as before it")
    click.echo(str(said.get("url", output)))


def _taken_out(edition: Edition, index: int, *, ask: bool, quiet: bool) -> Any:
    from hubedit.cli.talk import TerminalTalk
    from hubedit.restacking import without

    return without(edition, index, ask=ask, talk=TerminalTalk(quiet=quiet))
