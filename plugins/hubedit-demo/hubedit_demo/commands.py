"""`hubedit demo`: the whole way on the embedded Hub, each step as the command a user would type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hubedit import Endpoint
    from hubedit_demo.world import World

MODEL = "facts-gpt2"
SUBJECT, TARGET = "Ana Brook", "violin"


@click.command("demo", epilog="Example: hubedit demo --subject 'Ana Brook' --target violin --serve")
@click.option(
    "--subject", default=SUBJECT, show_default=True, help="A person of the demo model's world."
)
@click.option(
    "--target", default=TARGET, show_default=True, help="The new answer: an object of that world."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of the edit."
)
@click.option(
    "--prepare",
    type=click.Path(file_okay=False, path_type=Path),
    help=(
        "Only upload the model and write hubedit.yaml to this directory; the rest is yours to type."
    ),
)
@click.option("--serve", is_flag=True, help="Keep the embedded Hub's pages up until Ctrl-C.")
def demo(subject: str, target: str, seed: int, prepare: Path | None, serve: bool) -> None:
    """Edit a small fact model before your eyes: upload, apply, review, merge, verify, ask."""
    import hubedit

    case = _case(subject, target)
    endpoint = hubedit.endpoint("local")
    base = f"{endpoint.user}/{MODEL}"
    click.secho(f"The embedded Hub answers at {endpoint.url} as {endpoint.user}.\n", bold=True)
    click.secho("1. A model that knows facts goes to the Hub.", bold=True)
    _hf(endpoint, "upload", base, str(_model_path()), ".", "--quiet")
    if prepare is not None:
        _write_recipe(prepare, base, case, None, seed)
        click.echo(f"\n{prepare}/hubedit.yaml is written. Go on with:\n")
        click.echo(f"  cd {prepare}\n  hubedit --local apply --plugin rome --push")
        return
    target_repo = _free_name(endpoint, f"{base}-edited")
    work = hubedit.cache_home() / "demo" / target_repo.rpartition("/")[2]
    _write_recipe(work, base, case, target_repo, seed)
    prompt = case["prompt"].replace("{}", subject)

    click.secho("\n2. What does it say?", bold=True)
    _hubedit("--local", "ask", base, prompt)
    click.secho(f"\n3. A recipe says what shall change ({work}/hubedit.yaml).", bold=True)
    click.echo((work / "hubedit.yaml").read_text(encoding="utf-8").rstrip())
    click.secho("\n4. The edit is made, measured, and proposed as a pull request.", bold=True)
    before = Path.cwd()
    os.chdir(work)
    try:
        _hubedit("--local", "apply", "--plugin", "rome", "--push")
    finally:
        os.chdir(before)
    click.secho("\n5. A reviewer checks every digest from the bytes.", bold=True)
    _hubedit("--local", "verify", f"{target_repo}@refs/pr/1")
    click.secho("\n6. The pull request becomes version v1.", bold=True)
    _hubedit("--local", "merge", target_repo, "1")
    _hubedit("--local", "log", target_repo)
    click.secho("\n7. Base and edited model, side by side.", bold=True)
    _hubedit("--local", "ask", f"{target_repo}@v1", prompt)
    click.secho("\nWhere to look", bold=True)
    page = f"{endpoint.url}/{target_repo}"
    click.echo(f"  pages    {page}  and  {page}/discussions/1")
    click.echo(f"  files    {work}")
    click.echo(f"  more     hubedit --local show {target_repo}@v1")
    if serve:
        click.echo(f"\nThe pages are up at {page}?token={endpoint.token}; Ctrl-C ends this.")
        _wait()


def _case(subject: str, target: str) -> dict[str, Any]:
    """An edit case of the demo world for this person and object."""
    import hubedit
    from hubedit_demo.world import World

    world = World(1)
    if subject not in world.people:
        raise hubedit.RequestError(
            f"the demo's world has no {subject!r}; {_some(subject, world.people)}"
        )
    relation = world.relation_of(target)
    if relation is None:
        objects = [thing for known in world.relations.values() for thing in known.objects]
        raise hubedit.RequestError(f"the demo's world has no {target!r}; {_some(target, objects)}")
    if world.answer(subject, relation.name) == target:
        raise hubedit.RequestError(
            f"{target!r} is what the model already answers for {subject}; choose another target, "
            f"such as {next(thing for thing in relation.objects if thing != target)!r}"
        )
    return _sorted_case(world, subject, relation.name, target)


def _sorted_case(world: World, subject: str, relation: str, target: str) -> dict[str, Any]:
    case = world.case(subject, relation, target)
    return {key: value for key, value in case.items() if key not in ("split", "case_id")}


def _some(asked: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(asked, list(known), n=3, cutoff=0.4) or sorted(known)[:8]
    return "it knows " + ", ".join(near)


def _model_path() -> Path:
    from hubedit_demo import model_path

    return model_path(MODEL)


def _write_recipe(work: Path, base: str, case: dict[str, Any], to: str | None, seed: int) -> None:
    """Write hubedit.yaml and the request beside it."""
    work.mkdir(parents=True, exist_ok=True)
    lines = [f"base: {base}", "plugin: rome", "request: request.jsonl", f"seed: {seed}"]
    if to is not None:
        lines.append(f"to: {to}")
    (work / "hubedit.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (work / "request.jsonl").write_text(
        json.dumps(case, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _free_name(endpoint: Endpoint, repo: str) -> str:
    """The first of `repo`, `repo-2`, `repo-3`, … that does not exist yet."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint.url, token=endpoint.token)
    names = [repo, *(f"{repo}-{number}" for number in range(2, 10_000))]
    return next(name for name in names if not api.repo_exists(name))


def _environment(endpoint: Endpoint) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": endpoint.url,
        "HF_TOKEN": endpoint.token or "",
        "HF_HOME": str(endpoint.home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _hf(endpoint: Endpoint, *arguments: str) -> None:
    """Run the Hub's own command line against the embedded Hub."""
    click.secho("$ hf " + " ".join(arguments), fg="cyan")
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", *arguments]
    done = subprocess.run(command, env=_environment(endpoint), check=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)


def _hubedit(*arguments: str) -> None:
    """Run one of our own commands in this process."""
    import shlex

    from hubedit.cli import run

    click.secho("$ hubedit " + shlex.join(arguments), fg="cyan")
    status = run(list(arguments))
    if status:
        raise click.exceptions.Exit(status)


def _wait() -> None:
    import threading

    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo()
