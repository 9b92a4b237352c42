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
    from hubedit.publishing import plan_push, publish
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
            if not Path(edit).is_dir():
                repo = edit.partition("@")[0]
                plan = plan_push(revision, hub(), repo, direct=direct, force=False)
                pushed = publish(revision, hub(), plan, body=made.markdown())
                said |= {"commit": pushed.commit, "url": pushed.url}
                if pushed.pr is not None:
                    said["pr"] = pushed.pr
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
