"""`hubedit delta`: the difference of two checkpoints becomes an edit."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import (
    base_option,
    dry_run_option,
    hub_opener,
    json_option,
    local_option,
    print_json,
    size,
)


@click.command(
    "delta", epilog="Example: hubedit delta Qwen/Qwen3-0.6B-Base Qwen/Qwen3-0.6B -o qwen-delta"
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write; needed but for a dry run.",
)
@base_option
@local_option
@dry_run_option
@json_option
def command(
    a: str,
    b: str,
    output: Path | None,
    base: str | None,
    local: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write what makes B of A, each REPO[@REV] or DIR, as an edit of A that `push` publishes."""
    from hubedit.between import make_delta

    if output is None and not dry_run:
        raise click.UsageError("give the directory to write with -o, or --dry-run")
    made = make_delta(
        a,
        b,
        hub_opener(local),
        None if dry_run else output,
        base=base,
        said=lambda choice: click.echo(f"{choice.name}: {choice.kind} ({choice.reason})", err=True),
    )
    if as_json:
        print_json(made.as_json())
        return
    for path in made.files:
        click.echo(f"{path}: written as in B")
    for path in made.left:
        click.echo(f"{path} differs and stays as in A")
    share = made.nbytes / made.checkpoint_nbytes if made.checkpoint_nbytes else 0
    what = (
        f"{len(made.changes)} tensors, a delta of {size(made.nbytes)} ({share:.1%} of the weights)"
    )
    if made.directory is None:
        click.echo(f"would write {what}")
    else:
        click.echo(f"{what} written to {made.directory}: result {made.manifest.result}")
