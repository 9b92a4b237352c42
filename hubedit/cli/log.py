"""`hubedit log`: the revisions of an edit repository."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import edit_argument, hub_opener, json_option, local_option, print_json


@click.command("log", epilog="Example: hubedit log me/facts-gpt2-edited")
@edit_argument
@local_option
@json_option
def command(edit: str, local: bool, as_json: bool) -> None:
    """List revisions, newest first: commits and tags of a repository, edits of a directory."""
    if Path(edit).is_dir():
        _of_directory(edit, local, as_json)
        return
    from hubedit.hub import split_revision

    repo, revision = split_revision(edit)
    lines = hub_opener(local)().log(repo, revision)
    if as_json:
        print_json(
            [
                {
                    "commit": line.commit,
                    "title": line.title,
                    "date": line.date,
                    "tags": list(line.tags),
                }
                for line in lines
            ]
        )
        return
    for line in lines:
        tags = f" ({', '.join(line.tags)})" if line.tags else ""
        click.echo(f"{line.commit[:12]}  {line.date[:16].replace('T', ' ')}{tags}  {line.title}")


def _of_directory(edit: str, local: bool, as_json: bool) -> None:
    from hubedit.editions import edits_of

    entries = list(reversed(edits_of(edit, hub_opener(local)).stack.edits))
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in entries])
        return
    for number, entry in zip(range(len(entries), 0, -1), entries, strict=True):
        click.echo(f"{number}  {entry.name}  {entry.summary}")
