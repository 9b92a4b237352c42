"""`hubedit trace`: the layers that facts are read at."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import base_option, hub_opener, json_option, local_option, print_json


@click.command("trace", epilog="Example: hubedit trace DIR --request facts.jsonl -o trace.png")
@click.argument("model", metavar="REPO[@REV]|DIR")
@click.option(
    "--request",
    metavar="SOURCE",
    type=click.Path(),
    help="Facts: a .jsonl, .json, .csv or .parquet file, or hf://datasets/….",
)
@click.option("--prompt", metavar="TEXT", help="A prompt with {} where the subject goes.")
@click.option("--subject", metavar="TEXT", help="What the fact is about.")
@click.option(
    "--facts",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Rows of the request at most, spread over it.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Corrupted runs of each prompt.",
)
@click.option(
    "--noise",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="In standard deviations of the subjects' embeddings.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    help="Layers whose attention or MLP is restored together; default: 10 of 48.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the heat map as a PNG.",
)
@click.option("--device", default="cpu", show_default=True, help="Such as cpu or cuda:0.")
@base_option
@local_option
@json_option
def command(
    model: str,
    request: str | None,
    prompt: str | None,
    subject: str | None,
    facts: int,
    samples: int,
    noise: float,
    window: int | None,
    seed: int,
    output: Path | None,
    device: str,
    base: str | None,
    local: bool,
    as_json: bool,
) -> None:
    """Corrupt the subject of each fact and restore states one by one (causal tracing).

    The result is kept: an edit of this MODEL that names no layer takes the one found, where none
    is published for it.
    """
    from hubedit import measuring
    from hubedit.cli.talk import TerminalTalk
    from hubedit.locating import Tracing
    from hubedit.tracemap import trace_text, write_trace_map

    hub = hub_opener(local)
    rows = measuring.read_facts(request, prompt, subject, facts, hub)
    address, found = measuring.trace(
        model,
        hub,
        rows,
        Tracing(samples, noise, window, seed),
        base=base,
        device=device,
        talk=TerminalTalk(quiet=as_json),
    )
    if output is not None:
        write_trace_map(found, output)
    if as_json:
        print_json({"artifact": address, **found})
        return
    click.echo(trace_text(found))
    click.echo(f"kept as {address[:12]}", err=True)
