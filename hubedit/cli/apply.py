"""`hubedit apply`: a recipe goes in, a revision comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
)
from hubedit.cli.recipe_options import read_arguments, recipe_arguments

if TYPE_CHECKING:
    from hubedit.hub import Hub
    from hubedit.recipe import Recipe
    from hubedit.run import Job


@click.command(
    "apply",
    epilog="Example: hubedit apply --base owner/model --request facts.jsonl --push",
)
@recipe_arguments
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the revision.",
)
@click.option("--push", is_flag=True, help="Push the revision to the Hub.")
@direct_option
@click.option(
    "--with-weights", is_flag=True, help="Also write the edited shards, for plain transformers."
)
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(min=1),
    help="Apply the rows N at a time, each batch an edit of its own on top of the last.",
)
@click.option(
    "--canary",
    "canaries",
    metavar="NAME=LIMIT",
    multiple=True,
    help="With --batch: stop before recall, perplexity or norm pass LIMIT; NAME=off ignores it.",
)
@force_option
@local_option
@dry_run_option
@json_option
def command(
    recipe: str | None,
    output: Path | None,
    push: bool,
    direct: bool,
    with_weights: bool,
    batch: int | None,
    canaries: tuple[str, ...],
    force: bool,
    local: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Edit a model as a recipe says: RECIPE, else hubedit.yaml here, with flags on top."""
    from hubedit import run
    from hubedit.cli.batches import in_batches
    from hubedit.cli.talk import TerminalTalk
    from hubedit.context import rank
    from hubedit.diff import print_edit
    from hubedit.errors import RecipeError
    from hubedit.revisions import check_output

    full = read_arguments(recipe, given)
    if output is not None:
        check_output(output)
    if batch is None and canaries:
        raise RecipeError("--canary watches batches; say how many rows each has with --batch N")
    if batch is not None and push and not direct:
        raise RecipeError(
            "every batch becomes a revision of its own, so that a push of them goes to main: add "
            "--direct, or leave --push out"
        )
    hub = hub_opener(local)
    talk = TerminalTalk(quiet=as_json)
    if rank() > 0:
        _follow(full, hub, force=force, dry_run=dry_run)
        return 0
    job = run.prepare(full, hub, push=push, weights=with_weights)
    if dry_run:
        _say_plan(job, output, push=push, direct=direct, batch=batch, as_json=as_json)
        return 0
    if batch is not None:
        return in_batches(
            job,
            batch,
            output,
            canaries,
            hub if push else None,
            direct=direct,
            force=force,
            as_json=as_json,
        )
    applied = run.apply(job, output, force=force, talk=talk)
    result: dict[str, Any] = {
        "directory": str(applied.directory),
        "manifest": applied.manifest.model_dump(mode="json"),
    }
    if not as_json:
        from rich.console import Console

        shown = [probe.model_dump() for probe in applied.probes]
        print_edit(applied.manifest, shown, Console(), layers=applied.manifest.base.layers)
        click.echo(f"written to {applied.directory}")
    if push:
        assert job.target is not None
        talk.log(f"pushing to {job.target.repo}")
        plan, pushed = run.publish(applied, hub(), job.target.repo, direct=direct, force=force)
        result["pushed"] = {
            "repo": pushed.repo,
            "commit": pushed.commit,
            "url": pushed.url,
            "pr": pushed.pr,
        }
        if not as_json:
            click.echo(f"pushed {size(sum(plan.files.values()))} to {pushed.url}")
            if pushed.pr is not None:
                click.echo(
                    f"next: hubedit{' --local' if hub().is_embedded else ''} merge "
                    f"{pushed.repo} {pushed.pr}"
                )
    if as_json:
        print_json(result)
    return 0


def _follow(recipe: Recipe, hub: Callable[[], Hub], *, force: bool, dry_run: bool) -> None:
    """Take part in a run of several processes, of which the first one writes and talks."""
    from hubedit import run
    from hubedit.context import rank
    from hubedit.errors import HubEditError
    from hubedit.following import follow

    try:
        job = run.prepare(recipe, hub)
        if not dry_run:
            follow(job, force=force)
    except HubEditError as error:
        click.echo(f"hubedit (process {rank()}): {error}", err=True)
        click.get_current_context().exit(1)


def _say_plan(
    job: Job,
    output: Path | None,
    *,
    push: bool,
    direct: bool,
    batch: int | None,
    as_json: bool,
) -> None:
    """Say what an apply would do."""
    base = job.start.stack.base
    plan: dict[str, Any] = {
        "base": base.title,
        "height": job.start.stack.height + 1,
        "method": job.method.name,
        "config": job.config.model_dump(mode="json"),
        "rows": len(job.rows),
        "batches": -(-len(job.rows) // batch) if batch else 1,
        "output": str(output) if output else None,
        "weights": job.weights,
        "push_to": job.target.repo if job.target else None,
        "creates_repository": bool(job.target and job.target.head is None),
        "pull_request": push and not direct,
    }
    if as_json:
        print_json(plan)
        return
    for key, value in plan.items():
        click.echo(f"{key.replace('_', ' ')}: {value}")
