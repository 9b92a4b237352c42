"""`hubedit show`: what an edit changed and where it came from."""

from __future__ import annotations

import click

from hubedit.cli.options import edit_argument, hub_opener, json_option, local_option, print_json


@click.command("show", epilog="Example: hubedit show me/facts-gpt2-edited@v1")
@edit_argument
@local_option
@json_option
def command(edit: str, local: bool, as_json: bool) -> None:
    """Show the stack of edits and the newest one in detail; reads no weights."""
    from hubedit.diff import print_edit
    from hubedit.editions import edits_of
    from hubedit.markdown import counted
    from hubedit.probes import from_jsonl

    edition = edits_of(edit, hub_opener(local))
    if as_json:
        print_json(
            {
                "stack": edition.stack.model_dump(mode="json"),
                "manifests": [manifest.model_dump(mode="json") for manifest in edition.manifests],
            }
        )
        return
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    stack = edition.stack
    console.print(f"{edition.place.title}: {counted(stack.height, 'edit')} of {stack.base.title}")
    for number, entry in enumerate(stack.edits, start=1):
        console.print(f"  {number}  {entry.name}  {entry.summary}", soft_wrap=True)
    if not stack.edits:
        return
    top = stack.edits[-1]
    probes = from_jsonl(edition.place.read(f"{top.folder}/probes.jsonl").decode("utf-8"))
    print_edit(
        edition.manifests[-1],
        [probe.model_dump() for probe in probes],
        Console(),
        layers=stack.base.layers,
    )
