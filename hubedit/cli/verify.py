"""`hubedit verify`: the records are recomputed from the bytes."""

from __future__ import annotations

import click

from hubedit.cli.options import (
    base_option,
    edit_argument,
    hub_opener,
    json_option,
    local_option,
    print_json,
)


@click.command("verify", epilog="Example: hubedit verify me/facts-gpt2-edited@v1 --deep")
@edit_argument
@click.option(
    "--deep",
    is_flag=True,
    help="Also read and hash every tensor of the base and of included weights.",
)
@base_option
@local_option
@json_option
def command(edit: str, deep: bool, base: str | None, local: bool, as_json: bool) -> None:
    """Check every file and digest, rebuild each changed tensor, and recompute the result digest."""
    from hubedit.editions import edits_of
    from hubedit.errors import VerificationError
    from hubedit.verification import verify

    edition = edits_of(edit, hub_opener(local), base)
    report = verify(edition, deep=deep)
    if as_json:
        print_json(report.as_json())
    else:
        for check in report.checks:
            click.echo(f"{'ok ' if not check.problems else 'BAD'}  {check.name}: {check.detail}")
    if report.problems:
        raise VerificationError(edition.place.title, report.problems)
    if not as_json:
        click.echo(f"verified: result {report.result}")
