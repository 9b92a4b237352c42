"""`hubedit stats`: second moments of keys, made once and used by many edits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.options import (
    base_option,
    dry_run_option,
    hub_opener,
    json_option,
    local_option,
    print_json,
    size,
)

if TYPE_CHECKING:
    from hubedit.artifacts import Held


@click.group("stats", epilog="Example: hubedit stats compute openai-community/gpt2 --layers 3-5")
def command() -> None:
    """Second moments E[k kᵀ] of what enters the MLP matrices that edits change."""


def _addresses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from hubedit.artifacts import ArtifactStore
    from hubedit.moments import KIND

    found = [held.address[:12] for held in ArtifactStore().held(KIND) if held.finished]
    return [address for address in found if address.startswith(incomplete)]


@command.command("compute", epilog="Example: hubedit stats compute gpt2-model --layers 3-5")
@click.argument("model", metavar="REPO[@REV]|DIR")
@click.option(
    "--layers",
    metavar="N,N-N",
    help="Blocks from 0, such as 4 or 3-5,8; by default the one that is edited.",
)
@click.option("--corpus", metavar="FILE|hf://datasets/…", help="Texts; default: corpus.txt.")
@click.option(
    "--texts",
    type=click.IntRange(min=2),
    default=100_000,
    show_default=True,
    help="Texts at most; fewer give an estimate, whose error is stated.",
)
@click.option(
    "--length",
    type=click.IntRange(min=2),
    default=1024,
    show_default=True,
    help="Tokens read of each text, at most.",
)
@click.option("--device", default="cpu", show_default=True, help="Such as cpu or cuda:0.")
@base_option
@dry_run_option
@local_option
@json_option
def compute(
    model: str,
    layers: str | None,
    corpus: str | None,
    texts: int,
    length: int,
    device: str,
    base: str | None,
    dry_run: bool,
    local: bool,
    as_json: bool,
) -> None:
    """Take the statistics of MODEL, one pass for all layers; an interrupted pass goes on."""
    from hubedit import measuring
    from hubedit.cli.talk import TerminalTalk

    wanted = measuring.Wanted(layers, corpus, texts, length)
    talk = TerminalTalk(quiet=as_json)
    hub = hub_opener(local)
    if dry_run:
        rows = measuring.foreseen(model, hub, wanted, base=base, device=device, talk=talk)
        _table(rows, as_json, "to be made")
        return
    made = measuring.compute(model, hub, wanted, base=base, device=device, talk=talk)
    _show(made, as_json)


@command.command("list", epilog="Example: hubedit stats list --json")
@json_option
def listed(as_json: bool) -> None:
    """List the statistics of this machine, with those that were begun."""
    from hubedit.artifacts import ArtifactStore
    from hubedit.moments import KIND

    _show(list(ArtifactStore().held(KIND)), as_json)


def _show(held: list[Held], as_json: bool) -> None:
    from hubedit.measuring import described

    _table([described(one) for one in held], as_json)


def _table(rows: list[dict[str, Any]], as_json: bool, otherwise: str = "unfinished") -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no statistics; make some with `hubedit stats compute`", err=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "artifact", "model", "module", "texts", "quality", "size", box=None, header_style="bold"
    )
    for row in rows:
        state = row["quality"] or ("" if row["finished"] else otherwise)
        texts = f"{row['texts']} of {row['source']}" if row["source"] else str(row["texts"])
        model = row["model"] or "–"
        table.add_row(row["artifact"][:12], model, row["module"], texts, state, size(row["bytes"]))
    Console(markup=False, highlight=False).print(table)


@command.command("push", epilog="Example: hubedit stats push --to me/statistics 3fa2c1")
@click.argument("artifacts", nargs=-1, metavar="[ARTIFACT]…", shell_complete=_addresses)
@click.option("--to", required=True, metavar="REPO", help="The dataset repository.")
@click.option("--public", is_flag=True, help="Make a new repository public; private if not given.")
@dry_run_option
@local_option
@json_option
def push(
    artifacts: tuple[str, ...], to: str, public: bool, dry_run: bool, local: bool, as_json: bool
) -> None:
    """Add statistics of this machine, or those named, to a dataset repository."""
    from hubedit import measuring

    hub = hub_opener(local)
    if dry_run:
        _show(measuring.chosen(artifacts), as_json)
        return
    done = measuring.push(artifacts, to, hub(), private=not public)
    said: dict[str, Any] = {"repo": to, "commit": done.commit if done else None}
    if as_json:
        print_json(said)
    else:
        click.echo(done.url if done else f"{to} has them all; nothing was sent")


@command.command("pull", epilog="Example: hubedit stats pull me/statistics")
@click.argument("repo", metavar="REPO[@REV]")
@click.argument("artifacts", nargs=-1, metavar="[ARTIFACT]…")
@local_option
@json_option
def pull(repo: str, artifacts: tuple[str, ...], local: bool, as_json: bool) -> None:
    """Take statistics, all or those named, from a dataset repository; every file is checked."""
    from hubedit import measuring

    came, here = measuring.pull(repo, artifacts, hub_opener(local)())
    if as_json:
        print_json({"repo": repo, "pulled": came, "present": here})
    else:
        click.echo(f"{len(came)} pulled, {len(here)} were here already")
