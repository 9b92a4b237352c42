"""How well a method edits facts, one at a time or many at once, scored on the rebuilt model.

    python benchmarks/edit_quality.py --plugin rome
    python benchmarks/edit_quality.py --plugin rome --set preserve=attributes --seed 7
    python benchmarks/edit_quality.py --plugin memit --edits 50

Every case of the demo's test split, or every group of `--edits` cases, is made from the unedited
model. The method is given the prompts, the subjects and both answers, and none of the prompts that
it is scored on; a prompt whose fact the same group changes is not asked as a neighbour. What is
scored is the base with the encoded delta applied to its stored bits. An answer counts if every one
of its tokens is the likeliest in the whole vocabulary. `--seed 7` first trains the demo's model
anew, on a world of its own, so that nothing depends on the one model that ships.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hubedit_demo
import torch

from hubedit import models
from hubedit.context import Silent
from hubedit.delta import encode
from hubedit.errors import CollapseError
from hubedit.hub import Hub
from hubedit.recipe import make_recipe, parse_settings
from hubedit.requests import rows_of
from hubedit.rows import FactEdit
from hubedit.run import prepare, run_method

GROUPS = ("rewrite", "paraphrases", "neighbours", "attributes")
FOLLOW = frozenset({"rewrite", "paraphrases"})
"""Groups that should give the new answer; the others should answer as before."""

ASKED = frozenset({"prompt", "subject", "target", "true_target", "case_id"})
"""All that the method is told of a case."""


def prompts(row: FactEdit) -> dict[str, list[tuple[str, str]]]:
    """The questions of a case: (prompt, answer), by group."""
    target = row.continuation
    return {
        "rewrite": [(row.text, target)],
        "paraphrases": [(prompt, target) for prompt in row.paraphrases],
        "neighbours": [(item.prompt, f" {item.target}") for item in row.neighbours],
        "attributes": [(item.prompt, f" {item.target}") for item in row.attributes],
    }


def likeliest(
    model: models.LoadedModel, asked: Mapping[str, Sequence[tuple[str, str]]]
) -> dict[str, Any]:
    """For each question the answer's tokens and the likeliest ones, by group."""
    flat = [pair for group in GROUPS for pair in asked[group]]
    scored = iter(model.target_logprobs(flat))
    return {
        group: [
            (tuple(score.token_ids), tuple(score.top_ids))
            for score in (next(scored) for _ in asked[group])
        ]
        for group in GROUPS
    }


def grouped(rows: Sequence[FactEdit], size: int) -> list[list[FactEdit]]:
    """Groups of so many rows that are made at once, each changing a fact once; the rest is left."""
    if size == 1:
        return [[row] for row in rows]
    facts = {(row.subject, row.true_target): row for row in reversed(rows)}
    kept = [row for row in rows if facts[row.subject, row.true_target] is row]
    return [kept[start : start + size] for start in range(0, len(kept) - size + 1, size)]


def asked_of(group: Sequence[FactEdit]) -> dict[str, list[tuple[str, str]]]:
    """The questions of all cases of a group, without those whose fact the group itself changes."""
    facts = [(row.subject, f" {row.true_target}") for row in group]

    def stays(prompt: str, answer: str) -> bool:
        return not any(subject in prompt and answer == old for subject, old in facts)

    found: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
    for row in group:
        for name, pairs in prompts(row).items():
            found[name] += [pair for pair in pairs if name in FOLLOW or stays(*pair)]
    return found


def measure(
    directory: Path,
    cases: Sequence[Mapping[str, Any]],
    plugin: str,
    settings: Mapping[str, Any],
    edits: int = 1,
) -> dict[str, Any]:
    """Edit and score every group of cases; returns the figures of the table."""
    rows = rows_of(FactEdit, cases)
    groups = grouped(rows, edits)
    told = [row.model_validate(row.model_dump(include=set(ASKED))) for row in groups[0]]
    recipe = make_recipe(
        {
            "base": str(directory),
            "plugin": plugin,
            "config": dict(settings),
            "request": [row.model_dump(mode="json", exclude_defaults=True) for row in told],
            "threads": torch.get_num_threads(),
        }
    )
    job = prepare(recipe, Hub)
    model = models.load(directory)
    unedited: dict[str, list[bool]] = {group: [] for group in GROUPS}
    edited: dict[str, list[bool]] = {group: [] for group in GROUPS}
    sizes, seconds, stopped = [], [], []
    for number, group in enumerate(groups, start=1):
        told = [row.model_validate(row.model_dump(include=set(ASKED))) for row in group]
        asked = asked_of(group)
        model.restore()
        before = likeliest(model, asked)
        began = time.perf_counter()
        try:
            run_method(model, replace(job, rows=told), False, Silent())
        except CollapseError as error:
            stopped.append(str(error))
            model.restore()
        else:
            encoded = encode(model.changes(), model.start, meta={"base": "", "parent": ""})
            seconds.append((time.perf_counter() - began) / len(group))
            sizes.append(len(encoded.delta.to_bytes()))
            model.restore()
            for name, value in encoded.after.items():
                model.set_tensor(name, value)
        after = likeliest(model, asked)
        for name in GROUPS:
            for (answer, was), (_, now) in zip(before[name], after[name], strict=True):
                unedited[name].append(was == answer)
                edited[name].append(now == (answer if name in FOLLOW else was))
        if sys.stderr.isatty():
            print(f"\r{number}/{len(groups)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return {
        "plugin": plugin,
        "config": job.config.model_dump(mode="json"),
        "model": str(directory),
        "seed": recipe.seed,
        "threads": torch.get_num_threads(),
        "cases": len(groups) * edits,
        "edits": edits,
        "stopped": stopped,
        "n": {group: len(edited[group]) for group in GROUPS},
        "unedited": {group: share(unedited[group]) for group in GROUPS},
        "edited": {group: share(edited[group]) for group in GROUPS},
        "delta_bytes": statistics.median(sizes) if sizes else None,
        "seconds": round(statistics.median(seconds), 3) if seconds else None,
    }


def share(passed: Sequence[bool]) -> float | None:
    """Per cent, or None of nothing."""
    return round(100 * sum(passed) / len(passed), 2) if passed else None


def table(found: Mapping[str, Any]) -> str:
    """The figures as Markdown; in the first row neighbours and attributes are answered correctly,
    in the second they are answered as before the edit."""
    heads = [f"{group} (n = {found['n'][group]})" for group in GROUPS]
    lines = [
        "| model | " + " | ".join(heads) + " | delta, bytes | seconds per edit |",
        "|---" * (len(GROUPS) + 3) + "|",
    ]
    for name, tail in (
        ("unedited", "| – | – |"),
        ("edited", f"| {found['delta_bytes']} | {found['seconds']} |"),
    ):
        cells = [f"{found[name][group]:.1f} %" for group in GROUPS]
        lines.append(f"| {name} | " + " | ".join(cells) + " " + tail)
    return "\n".join(lines)


def retrained(seed: int, directory: Path | None) -> Path:
    """The demo's model trained from another seed, kept for the next time."""
    made = directory or Path(tempfile.gettempdir()) / f"hubedit-facts-gpt2-seed-{seed}"
    if not (made / "model.safetensors").exists():
        command = [sys.executable, "-m", "hubedit_demo.train", "--seed", str(seed), "-o", str(made)]
        subprocess.run(command, check=True)
    return made


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--plugin", required=True, help="name of the method")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of it"
    )
    parser.add_argument("--cases", type=int, default=100, help="how many cases (default 100)")
    parser.add_argument("--edits", type=int, default=1, help="how many facts at once (default 1)")
    parser.add_argument(
        "--split", choices=["test", "dev"], default="test", help="dev is for tuning"
    )
    parser.add_argument("--seed", type=int, help="train the demo's model from this seed first")
    parser.add_argument(
        "--model",
        type=Path,
        help="one of the demo's models, or a directory (with --seed: where to keep it)",
    )
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    directory = args.model or hubedit_demo.model_path()
    if str(directory) in hubedit_demo.MODELS:
        directory = hubedit_demo.model_path(str(directory))
    if args.seed is not None:
        directory = retrained(args.seed, args.model)
    lines = (directory / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [case for case in map(json.loads, lines) if case["split"] == args.split]
    with tempfile.TemporaryDirectory() as home:
        os.environ["HUBEDIT_HOME"] = home
        chosen = cases[: args.cases]
        found = measure(directory, chosen, args.plugin, parse_settings(args.set), args.edits)
    print(json.dumps(found, indent=1) if args.json else table(found))
    for reason in [] if args.json else found["stopped"]:
        print(f"stopped: {reason}")


if __name__ == "__main__":
    main()
