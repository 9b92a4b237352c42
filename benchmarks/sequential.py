"""What is left of earlier edits after many later ones, each made on what those before it left.

    python benchmarks/sequential.py -o sequential.png
    python benchmarks/sequential.py --plugins rome:1,memit:10,alphaedit:10:nullspace=0.3 --rows 100

Facts of the demo's test split are written in batches, each batch an edit of its own on the stack:
`rome:1` makes as many edits as there are facts, `alphaedit:10` a tenth. Settings that are not the
defaults follow; `published` names those of the method's publication. Between two edits the
model is rebuilt from its stored bits, and a method is told of its own earlier edits what they kept,
as `hubedit apply` on a stack would tell it. Guards are overruled, to show what they guard against.
Every `--every` facts all that were written so far are asked, and a fixed sample of neighbours whose
facts no row changes. An answer counts if every one of its tokens is the likeliest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hubedit_demo
import hubedit_memit.config
import hubedit_rome.config
import torch
from edit_quality import ASKED, grouped, share

from hubedit import Earlier, models
from hubedit.context import Silent
from hubedit.delta import encode
from hubedit.errors import HubEditError
from hubedit.hub import Hub
from hubedit.recipe import make_recipe, parse_settings
from hubedit.requests import rows_of
from hubedit.rows import FactEdit
from hubedit.run import prepare, run_method

NEIGHBOURS = 200
"""How many neighbours are asked each time."""

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "rome": hubedit_rome.config.PUBLISHED,
    **hubedit_memit.config.PUBLISHED,
    "memit": {**hubedit_memit.config.PUBLISHED["memit"], "absolute_weight": 1},
}
"""The published forms; MEMIT's λ as it is best on the split dev of facts-gpt2."""

Pairs = Sequence[tuple[str, str]]


def answered(model: models.LoadedModel, pairs: Pairs) -> list[bool]:
    """Whether each answer is the likeliest, token by token."""
    scores = model.target_logprobs(pairs)
    return [tuple(score.token_ids) == tuple(score.top_ids) for score in scores]


def sample(rows: Sequence[FactEdit]) -> list[tuple[str, str]]:
    """Neighbours of some rows whose own facts none of them changes, evenly drawn."""
    facts = [(row.subject, row.true_target) for row in rows]
    found = [
        (item.prompt, f" {item.target}")
        for row in rows
        for item in row.neighbours
        if not any(subject in item.prompt and item.target == old for subject, old in facts)
    ]
    found = list(dict.fromkeys(found))
    return found[:: max(1, len(found) // NEIGHBOURS)][:NEIGHBOURS]


def sequence(
    directory: Path, rows: Sequence[FactEdit], one: str, every: int, seconds: float
) -> dict[str, Any]:
    """Write rows in batches one on the other; what was left, every so often.

    Args:
        directory: of the model.
        rows: what is written.
        one: a method, the rows of a batch and settings, such as `memit:10:ridge=0`.
        every: ask after so many rows.
        seconds: end after so long.
    """
    plugin, _, rest = one.partition(":")
    text, _, given = rest.partition(":")
    size = int(text or 1)
    settings = (
        PUBLISHED[plugin]
        if given == "published"
        else parse_settings(given.split(";") if given else [])
    )
    asked = [(row.text, row.continuation) for row in rows]
    beside = sample(rows)
    told = [row.model_validate(row.model_dump(include=set(ASKED))) for row in rows]
    recipe = make_recipe(
        {
            "base": str(directory),
            "plugin": plugin,
            "config": settings,
            "request": [row.model_dump(mode="json", exclude_defaults=True) for row in told],
            "threads": torch.get_num_threads(),
        }
    )
    job = prepare(recipe, Hub)
    model, overlay = models.load(directory), {}
    points = [{"rows": 0, "recall": None, "neighbours": share(answered(model, beside))}]
    before: list[Earlier] = []
    began, stopped = time.perf_counter(), None
    for start in range(0, len(rows), size):
        part = told[start : start + size]
        try:
            run = run_method(model, replace(job, rows=part, earlier=before), True, Silent())
        except HubEditError as error:
            stopped = f"after {start} rows: {error}"
            break
        encoded = encode(model.changes(), model.start, meta={"base": "", "parent": ""})
        overlay = {**overlay, **encoded.after}
        name = f"{len(before) + 1:04d}-{plugin}-{'0' * 8}"
        config = job.config.model_dump(mode="json")
        before.append(Earlier(name, config, part, run.recorded, run.kept))
        model = models.load(directory, overlay=overlay)
        done = start + len(part)
        if done % every == 0 or done == len(rows):
            points.append(
                {
                    "rows": done,
                    "recall": share(answered(model, asked[:done])),
                    "neighbours": share(answered(model, beside)),
                }
            )
            print(f"{plugin}:{size} {points[-1]}", file=sys.stderr, flush=True)
        if time.perf_counter() - began > seconds:
            stopped = f"after {done} rows: {seconds:g} seconds were over"
            break
    return {
        "plugin": f"{plugin} ({given})" if given else plugin,
        "batch": size,
        "neighbours": len(beside),
        "points": points,
        "stopped": stopped,
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(found: Sequence[dict[str, Any]], every: int) -> str:
    """What is left, as Markdown: facts written so far that are answered, and neighbours."""
    counts = sorted({point["rows"] for one in found for point in one["points"]} - {0})
    shown = [count for count in counts if count % every == 0 or count == counts[-1]]
    lines = [
        "| method, rows per edit | asked | " + " | ".join(map(str, shown)) + " |",
        "|---" * (len(shown) + 2) + "|",
    ]
    for one in found:
        points = {point["rows"]: point for point in one["points"]}
        for name, key in (("rows so far", "recall"), ("neighbours", "neighbours")):
            cells = [f"{points[n][key]:.1f} %" if n in points else "–" for n in shown]
            lines.append(f"| {one['plugin']}, {one['batch']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what is left over the number of rows written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    titles = {"recall": "rows written so far that are answered", "neighbours": "neighbours kept"}
    for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        for one in found:
            points = [point for point in one["points"] if point[key] is not None]
            label = f"{one['plugin']}, {one['batch']} per edit"
            axes.plot([p["rows"] for p in points], [p[key] for p in points], "o-", label=label)
        axes.set(title=title, xlabel="rows written", ylim=(0, 103))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("%")
    figure.axes[0].legend(loc="lower left")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Read the command line, measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--plugins", default="rome:1,memit:10,alphaedit:10", help="methods, with rows per edit"
    )
    parser.add_argument("--rows", type=int, default=100, help="how many facts (default 100)")
    parser.add_argument("--every", type=int, default=10, help="ask after so many (default 10)")
    parser.add_argument("--model", default="facts-gpt2", help="one of the demo's models")
    parser.add_argument("--split", choices=["test", "dev"], default="test", help="dev: for tuning")
    parser.add_argument("--seconds", type=float, default=1e9, help="end a method after so long")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("-o", "--output", type=Path, help="where to draw a picture (PNG)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = rows_of(FactEdit, hubedit_demo.cases(args.split, args.model))
    [rows] = grouped(cases, args.rows)[:1]
    found = []
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("HUBEDIT_HOME", home)
        for one in args.plugins.split(","):
            directory = hubedit_demo.model_path(args.model)
            found.append(sequence(directory, rows, one, args.every, args.seconds))
    print(json.dumps(found, indent=1) if args.json else table(found, args.every))
    for one in [] if args.json else found:
        if one["stopped"]:
            print(f"{one['plugin']} ended {one['stopped']}")
    if args.output:
        plot(found, args.output)


if __name__ == "__main__":
    main()
