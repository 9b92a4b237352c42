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
)


@click.command("rebase", epilog="Example: hubedit rebase me/gpt2-edited openai-community/gpt2@main")
@click.argument("edit", metavar="REPO|DIR")
@click.argument("onto", metavar="BASE[@REV]")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the revision; needed for a DIR.",
)
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
    from hubedit.cli.restack import publish_restacked
    from hubedit.cli.talk import TerminalTalk
    from hubedit.editions import edits_of
    from hubedit.errors import RecipeError
    from hubedit.refitting import refit_onto

    if Path(edit).is_dir() and output is None and not dry_run:
        raise RecipeError(f"{edit} is a directory; say where the revision goes with -o DIR")
    hub, talk = hub_opener(local), TerminalTalk(quiet=as_json)
    edition = edits_of(edit, hub, base)
    if refit:
        made = refit_onto(edition, onto, hub, talk)
    else:
        made = restacking.onto(edition, onto, ask=not no_probes, talk=talk)
    publish_restacked(made, edit, output, hub, direct=direct, dry_run=dry_run, as_json=as_json)
