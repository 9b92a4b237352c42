"""`hubedit rebase`: a stack of edits is put on another commit of its base."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import (
    base_option,
    direct_option,
    dry_run_option,
    hub_opener,
    json_option,
    local_option,
    no_probes_option,
    revision_output_option,
)


@click.command("rebase", epilog="Example: hubedit rebase me/gpt2-edited openai-community/gpt2@main")
@click.argument("edit", metavar="REPO|DIR")
@click.argument("onto", metavar="BASE[@REV]")
@revision_output_option
@click.option(
    "--refit",
    is_flag=True,
    help="Run the methods again on the new base, where its tensors are others.",
)
@no_probes_option
@direct_option
@base_option
@local_option
@dry_run_option
@json_option
def command(
    edit: str,
    onto: str,
    output: Path | None,
    refit: bool,
    no_probes: bool,
    direct: bool,
    base: str | None,
    local: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put the edits of REPO on BASE, if what they touch is the same there, to the bit."""
    from hubedit import restacking
    from hubedit.cli.restack import check_place, publish_restacked
    from hubedit.cli.talk import TerminalTalk
    from hubedit.editions import edits_of
    from hubedit.refitting import refit_onto

    check_place(edit, output, dry_run=dry_run)
    hub, talk = hub_opener(local), TerminalTalk(quiet=as_json)
    edition = edits_of(edit, hub, base)
    if refit:
        made = refit_onto(edition, onto, hub, talk)
    else:
        made = restacking.onto(edition, onto, ask=not no_probes, talk=talk)
    publish_restacked(made, edit, output, hub, direct=direct, dry_run=dry_run, as_json=as_json)
