"""`hubedit materialize`: base and edits become plain model files."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import (
    base_option,
    dry_run_option,
    edit_argument,
    hub_opener,
    json_option,
    local_option,
    print_json,
    size,
)


@click.command(
    "materialize", epilog="Example: hubedit materialize me/facts-gpt2-edited@v1 -o facts-edited"
)
@edit_argument
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write.",
)
@click.option(
    "--link", is_flag=True, help="Hard-link files that do not change instead of copying them."
)
@base_option
@local_option
@dry_run_option
@json_option
def command(
    edit: str, output: Path, link: bool, base: str | None, local: bool, dry_run: bool, as_json: bool
) -> None:
    """Write the edited model to a directory that `from_pretrained` loads, shard by shard."""
    from hubedit.editions import edits_of
    from hubedit.revisions import check_output, materialized

    check_output(output)
    edition = edits_of(edit, hub_opener(local), base)
    total = sum(file.size for file in edition.stack.base.files)
    if dry_run:
        if as_json:
            print_json({"output": str(output), "bytes": total, "result": edition.stack.result})
        else:
            click.echo(f"would write {size(total)} to {output}")
        return
    materialized(edition, output, link=link)
    if as_json:
        print_json({"output": str(output), "bytes": total, "result": edition.stack.result})
    else:
        click.echo(f"{size(total)} written to {output}: result {edition.stack.result}")
