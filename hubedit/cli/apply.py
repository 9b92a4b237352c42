"""`hubedit apply`: a recipe goes in, a revision comes out."""

from __future__ import annotations

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
    to_option,
)

if TYPE_CHECKING:
    from hubedit.recipe import Recipe
    from hubedit.run import Job


def _method_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from hubedit.plugins import load_plugins

    return [
        method.name for method, _ in load_plugins().methods() if method.name.startswith(incomplete)
    ]


@click.command(
    "apply",
    epilog="Example: hubedit apply --base owner/model --request facts.jsonl --push",
)
@click.argument("recipe", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--plugin",
    "--method",
    "plugin",
    metavar="NAME",
    shell_complete=_method_names,
    help="Name of the method.",
)
@click.option("--base", metavar="REPO[@REV]|DIR", help="The model to start from.")
@click.option(
    "--request", metavar="FILE", type=click.Path(), help="Rows to change: .jsonl or .json."
)
@click.option("--prompt", metavar="TEXT", help="A prompt with {} where the subject goes.")
@click.option("--subject", metavar="TEXT", help="What the fact is about.")
@click.option("--target", metavar="TEXT", help="The answer the edited model shall give.")
@click.option("--true-target", metavar="TEXT", help="The answer before the edit.")
@click.option(
    "--paraphrase",
    multiple=True,
    metavar="TEXT",
    help="A whole prompt that should follow (repeatable).",
)
@click.option(
    "--neighbour",
    multiple=True,
    metavar="TEXT",
    help="A whole prompt on another subject that should stay (repeatable).",
)
@click.option(
    "--attribute",
    multiple=True,
    metavar="TEXT",
    help="A whole prompt on another fact of the subject that should stay (repeatable).",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the method (repeatable).",
)
@click.option("--corpus", metavar="FILE|hf://datasets/…", help="Text for statistics.")
@click.option("--device", help="Where the method works, such as cpu or cuda:0.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What the method computes in.",
)
@click.option("--seed", type=click.IntRange(min=0), help="The one source of randomness.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of the run; the manifest records them."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the revision.",
)
@click.option("--push", is_flag=True, help="Push the revision to the Hub.")
@to_option
@direct_option
@click.option(
    "--with-weights", is_flag=True, help="Also write the edited shards, for plain transformers."
)
@click.option(
    "--disclose",
    type=click.Choice(["full", "none"]),
    help="What is published of the request; by default none of what is forgotten.",
)
@click.option(
    "--allow-embeddings",
    is_flag=True,
    default=None,
    help="Let an undisclosed change touch embeddings and head, whose rows can tell it.",
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
    force: bool,
    local: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Edit a model as a recipe says: RECIPE, else hubedit.yaml here, with flags on top."""
    from hubedit import run
    from hubedit.cli.talk import TerminalTalk
    from hubedit.diff import print_edit
    from hubedit.revisions import check_output

    full = _recipe(recipe, given)
    if output is not None:
        check_output(output)
    hub = hub_opener(local)
    talk = TerminalTalk(quiet=as_json)
    job = run.prepare(full, hub, push=push, weights=with_weights)
    if dry_run:
        _say_plan(job, output, push=push, direct=direct, as_json=as_json)
        return
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


def _recipe(path: str | None, given: dict[str, Any]) -> Recipe:
    """Put the file and the flags together; flags win."""
    from hubedit.errors import RecipeError
    from hubedit.recipe import RECIPE_FILE, make_recipe, parse_settings, read_recipe

    keys: dict[str, Any] = {}
    if path is not None or Path(RECIPE_FILE).is_file():
        keys = read_recipe(Path(path or RECIPE_FILE))
    row = {
        "prompt": given.pop("prompt"),
        "subject": given.pop("subject"),
        "target": given.pop("target"),
        "true_target": given.pop("true_target"),
        "paraphrases": list(given.pop("paraphrase")) or None,
        "neighbours": list(given.pop("neighbour")) or None,
        "attributes": list(given.pop("attribute")) or None,
    }
    row = {key: value for key, value in row.items() if value is not None}
    settings = parse_settings(given.pop("settings"))
    keys |= {key: value for key, value in given.items() if value is not None}
    if settings:
        same_plugin = given.get("plugin") is None or "config" in keys
        keys["config"] = {**(keys.get("config") or {}), **settings} if same_plugin else settings
    if row:
        if given.get("request") is not None:
            raise RecipeError(
                "give the fact by --prompt, --subject and --target, or by --request, not both"
            )
        keys["request"] = [row]
    return make_recipe(keys)


def _say_plan(job: Job, output: Path | None, *, push: bool, direct: bool, as_json: bool) -> None:
    """Say what an apply would do."""
    base = job.start.stack.base
    plan: dict[str, Any] = {
        "base": base.title,
        "height": job.start.stack.height + 1,
        "method": job.method.name,
        "config": job.config.model_dump(mode="json"),
        "rows": len(job.rows),
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
