"""`hubedit plan`: what a run would load, change and send, before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import hub_opener, json_option, local_option, print_json, size
from hubedit.cli.recipe_options import read_arguments, recipe_arguments

if TYPE_CHECKING:
    from hubedit.planning import Plan

TENSORS_SHOWN = 12


@click.command("plan", epilog="Example: hubedit plan --base owner/model --request facts.jsonl")
@recipe_arguments
@click.option("--push", is_flag=True, help="Also look at the repository a push would go to.")
@click.option("--with-weights", is_flag=True, help="Count the edited shards, too.")
@local_option
@json_option
def command(
    recipe: str | None, push: bool, with_weights: bool, local: bool, as_json: bool, **given: Any
) -> None:
    """Say what `apply` with the same RECIPE and flags would do; reads headers, no weights."""
    from hubedit.planning import plan

    found = plan(read_arguments(recipe, given), hub_opener(local), push=push, weights=with_weights)
    if as_json:
        print_json(found.as_json())
        return
    lines = dict(_lines(found))
    width = max(map(len, lines))
    for name, text in lines.items():
        click.echo(f"{name:<{width}}  {text}")


def _lines(found: Plan) -> list[tuple[str, str]]:
    from hubedit.markdown import counted

    height = f", edit {found.height} of its stack" if found.height > 1 else ""
    lines = [
        ("base", f"{found.base} ({found.model_type}, {found.elements_total:,} elements){height}"),
        ("method", f"{found.method}, {counted(found.rows, 'row')}"),
    ]
    if found.tensors is None:
        lines.append(("changes", f"up to all {found.tensors_total} tensors"))
    else:
        share = (found.elements or 0) / max(found.elements_total, 1)
        count = f"{len(found.tensors)} of {found.tensors_total} tensors"
        lines.append(("changes", f"{count}, {share:.2%} of the elements"))
        for number, item in enumerate(found.tensors[:TENSORS_SHOWN], start=1):
            rank = "" if item.rank is None else f", rank {item.rank}"
            shape = " × ".join(map(str, item.shape))
            lines.append((f"  {number}", f"{item.name} [{shape}] {item.dtype}{rank}"))
        if len(found.tensors) > TENSORS_SHOWN:
            lines.append(("  …", f"and {len(found.tensors) - TENSORS_SHOWN} more"))
    exact = f"{found.delta:,} bytes" if found.delta is not None else None
    lines.append(("loads", f"{size(found.download)} of model files"))
    lines.append(("delta", exact or f"at most {size(found.delta_at_most)}"))
    if found.weights:
        text = f"{size(found.weights)}, of which {size(found.weights_changed)} differ from the base"
        lines.append(("weights", text))
    where = f" to {found.push_to}" if found.push_to else ""
    upload = size(found.upload) if found.upload is not None else "at most what is said above"
    lines.append(("push sends", f"{upload}{where}, and text records of some ten kB"))
    memory = found.memory
    lines.append(
        (
            "memory",
            f"about {size(memory.total)} at the peak ({size(memory.weights)} of weights in "
            f"{found.dtype}, {size(memory.work)} to work with)",
        )
    )
    return lines
