"""`hubedit mirror`: the facts of a request, asked backwards."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("mirror", epilog="Example: hubedit mirror request.jsonl -o mirrored.jsonl")
@click.argument("request", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
def mirror(request: Path, output: Path) -> None:
    """Write the facts of REQUEST (.jsonl) as questions for `hubedit review --probes`."""
    from hubedit_mirror import MirroredFact

    lines = request.read_text(encoding="utf-8").splitlines()
    facts = [MirroredFact.model_validate_json(line) for line in lines if line.strip()]
    probes = [{"prompt": fact.mirrored, "target": fact.subject} for fact in facts]
    text = "".join(json.dumps(probe, ensure_ascii=False) + "\n" for probe in probes)
    output.write_text(text, encoding="utf-8")
    click.echo(f"{len(probes)} questions are in {output}", err=True)
