"""`hubedit export`: an edit in a format of other tools."""

from __future__ import annotations

from dataclasses import asdict
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
    "export", epilog="Example: hubedit export me/facts-gpt2-edited@v1 -o facts-lora --format peft"
)
@click.argument("edit", metavar="REPO[@REV]|DIR")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["peft"]),
    default="peft",
    show_default=True,
    help="A LoRA adapter, for edits that are of low rank on linear layers.",
)
@base_option
@local_option
@dry_run_option
@json_option
def command(
    edit: str,
    output: Path,
    kind: str,
    base: str | None,
    local: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write all edits of the stack as one adapter, and say how exact a merge of it is."""
    from hubedit.editions import edits_of
    from hubedit.exporting import export_peft

    done = export_peft(edits_of(edit, hub_opener(local), base), output, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "output": str(output),
                "format": kind,
                "bytes": done.nbytes,
                "tensors": [asdict(item) for item in done.tensors],
                "elements_that_differ": done.differ,
                "elements_total": done.total,
            }
        )
        return
    verb = "would be written" if dry_run else "written"
    click.echo(f"{size(done.nbytes)} {verb} to {output}")
    for item in done.tensors:
        click.echo(f"  {item.name}  rank {item.rank}  {item.differ:,} of {item.total:,} differ")
    click.echo(
        f"after a PEFT merge {done.differ:,} of {done.total:,} elements differ from the exact "
        "result, which `hubedit materialize` writes"
    )
