"""What `revert --edit` and `rebase` do once the edits lie on their new start: write and send it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import print_json

if TYPE_CHECKING:
    from hubedit.hub import Hub
    from hubedit.restacking import Restacked


def check_place(edit: str, output: Path | None, *, dry_run: bool) -> None:
    """Refuse a directory whose new revision has no place.

    Raises:
        RecipeError: it says which option names one.
    """
    from hubedit.errors import RecipeError

    if Path(edit).is_dir() and output is None and not dry_run:
        raise RecipeError(f"{edit} is a directory; say where the revision goes with -o DIR")


def propose(
    revision: Path, edit: str, hub: Callable[[], Hub], *, body: str, direct: bool
) -> dict[str, Any]:
    """Send a revision to the repository it was made of, and say where; nothing for a directory."""
    from hubedit.publishing import plan_push, publish

    if Path(edit).is_dir():
        return {}
    plan = plan_push(revision, hub(), edit.partition("@")[0], direct=direct, force=False)
    pushed = publish(revision, hub(), plan, body=body)
    said: dict[str, Any] = {"commit": pushed.commit, "url": pushed.url}
    return said if pushed.pr is None else said | {"pr": pushed.pr}


def publish_restacked(
    made: Restacked,
    edit: str,
    output: Path | None,
    hub: Callable[[], Hub],
    *,
    direct: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the revision to `output`, or propose it to the repository; say what changed."""
    from hubedit.restacking import written

    said: dict[str, Any] = {
        "base": made.top.base.title,
        "result": made.top.result,
        "kept": made.height,
        "replayed": [
            {
                "edit": one.manifest.edit,
                "was": one.was.name,
                "other_bits": list(one.other),
                "asked": one.manifest.replayed is not None and one.manifest.replayed.asked,
            }
            for one in made.replayed
        ],
    }
    if made.removed is not None:
        said["reverts"] = made.removed.name
    if not dry_run:
        with written(made, output) as revision:
            said |= propose(revision, edit, hub, body=made.markdown(), direct=direct)
    if as_json:
        print_json(said)
        return
    for one in made.replayed:
        if one.manifest.replayed is None:
            click.echo(f"{one.was.name} is now {one.manifest.edit}: made anew", err=True)
            continue
        other = ", ".join(one.other)
        how = f"added anew to {other}" if other else "the same bits"
        click.echo(f"{one.was.name} is now {one.manifest.edit}: {how}", err=True)
    if made.removed is not None:
        verb = "would be taken out" if dry_run else "is taken out"
        click.echo(f"{made.removed.name} {verb}; the result is {made.top.result}")
    else:
        verb = "would lie" if dry_run else "lies"
        click.echo(f"the stack {verb} on {made.top.base.title}; the result is {made.top.result}")
    if not dry_run:
        click.echo(str(said.get("url", output)))
