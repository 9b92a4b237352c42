"""`hubedit push`: a finished edit goes to the Hub."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import (
    direct_option,
    dry_run_option,
    force_option,
    hub_opener,
    json_option,
    local_option,
    print_json,
    size,
    to_option,
)


@click.command("push", epilog="Example: hubedit push my-edit --to me/facts-fixed")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@to_option
@direct_option
@force_option
@local_option
@dry_run_option
@json_option
def command(
    directory: Path,
    to: str | None,
    direct: bool,
    force: bool,
    local: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push the edit in DIRECTORY in one commit: a pull request, or main with --direct."""
    from hubedit.publishing import plan_push, publish
    from hubedit.revisions import review_text

    hub = hub_opener(local)()
    plan = plan_push(directory, hub, to, direct=direct, force=force)
    if dry_run:
        if as_json:
            print_json(
                {
                    "repo": plan.repo,
                    "parent": plan.parent,
                    "creates": plan.creates,
                    "pull_request": plan.pr,
                    "files": dict(plan.files),
                }
            )
            return
        what = "a new private repository" if plan.creates else f"on top of {plan.parent}"
        click.echo(
            f"would push {len(plan.files)} files, {size(sum(plan.files.values()))}, to "
            f"{plan.repo} ({what})"
        )
        for path, count in plan.files.items():
            click.echo(f"  {path}  {size(count)}")
        return
    pushed = publish(directory, hub, plan, body=review_text(directory))
    if as_json:
        print_json(
            {"repo": pushed.repo, "commit": pushed.commit, "url": pushed.url, "pr": pushed.pr}
        )
        return
    click.echo(f"pushed {size(sum(plan.files.values()))} to {pushed.url}")
