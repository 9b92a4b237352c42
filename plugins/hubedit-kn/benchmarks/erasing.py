"""How well facts are erased or updated by their neurons, one at a time, on the rebuilt model.

    python plugins/hubedit-kn/benchmarks/erasing.py --model facts-gpt2
    python plugins/hubedit-kn/benchmarks/erasing.py --model facts-t5 --set position=answer
    python plugins/hubedit-kn/benchmarks/erasing.py --model facts-gpt2 --set operation=update

Every case of the demo's test split is made from the unedited model; `--split dev` is for choosing
settings. The method is told the prompt, the subject and the answers, and none of the paraphrases,
neighbours and attributes that it is scored on. What is scored is the base with the encoded delta
applied to its stored bits. A case counts as erased if the probability of the old answer fell by
half or more; neighbours (others with the same old answer) and attributes (other facts of the
subject) count as changed if their likeliest answer is another.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import hubedit_demo
import torch
from hubedit_kn import KnownFact

from hubedit import models
from hubedit.context import Silent
from hubedit.delta import encode
from hubedit.errors import CollapseError, MethodError
from hubedit.hub import Hub
from hubedit.recipe import make_recipe, parse_settings
from hubedit.requests import rows_of
from hubedit.run import prepare, run_method

TOLD = frozenset({"prompt", "subject", "target", "true_target"})
GROUPS = ("prompt", "paraphrases", "neighbours", "attributes")


def asked(row: KnownFact) -> dict[str, list[tuple[str, str]]]:
    """The questions of a case with their old answers, by group."""
    old = f" {row.true_target}"
    return {
        "prompt": [(row.text, old)],
        "paraphrases": [(text, old) for text in row.paraphrases],
        "neighbours": [(item.prompt, f" {item.target}") for item in row.neighbours],
        "attributes": [(item.prompt, f" {item.target}") for item in row.attributes],
    }


def answers(
    model: models.LoadedModel, questions: Mapping[str, Sequence[tuple[str, str]]]
) -> dict[str, list[tuple[float, tuple[int, ...]]]]:
    """The probability of each old answer, and the likeliest tokens in its place, by group."""
    flat = [pair for group in GROUPS for pair in questions[group]]
    scored = iter(model.target_logprobs(flat))
    return {
        group: [
            (math.exp(sum(score.logprobs)), tuple(score.top_ids))
            for score in (next(scored) for _ in questions[group])
        ]
        for group in GROUPS
    }


def measure(name: str, split: str, count: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Edit and score every case; returns the figures of a row of the table."""
    directory = hubedit_demo.model_path(name)
    rows = rows_of(
        KnownFact,
        [
            {key: value for key, value in case.items() if key != "split"}
            for case in hubedit_demo.cases(split, name)[:count]
        ],
    )
    update = settings.get("operation", "erase") == "update"
    told = TOLD if update else TOLD - {"target"}
    recipe = make_recipe(
        {
            "base": str(directory),
            "plugin": "kn",
            "config": {"operation": "erase", **settings},
            "request": [rows[0].model_dump(include=set(told))],
            "threads": torch.get_num_threads(),
        }
    )
    job = prepare(recipe, Hub)
    model = models.load(directory)
    fell: dict[str, list[float]] = {group: [] for group in GROUPS}
    changed: dict[str, list[bool]] = {group: [] for group in GROUPS}
    written: dict[str, list[bool]] = {"prompt": [], "paraphrases": []}
    neurons, sizes, seconds, stopped = [], [], [], 0
    for number, row in enumerate(rows, start=1):
        questions = asked(row)
        model.restore()
        before = answers(model, questions)
        began = time.perf_counter()
        try:
            only = KnownFact.model_validate(row.model_dump(include=set(told)))
            run = run_method(model, replace(job, rows=[only]), False, Silent())
        except (CollapseError, MethodError):
            stopped += 1
            model.restore()
        else:
            encoded = encode(model.changes(), model.start, meta={"base": "", "parent": ""})
            seconds.append(time.perf_counter() - began)
            sizes.append(len(encoded.delta.to_bytes()))
            neurons.append(run.recorded["rows"][0]["neurons"])
            model.restore()
            for tensor, value in encoded.after.items():
                model.set_tensor(tensor, value)
        after = answers(model, questions)
        for group in GROUPS:
            for (was, old), (now, new) in zip(before[group], after[group], strict=True):
                fell[group].append(1 - now / was)
                changed[group].append(old != new)
        if update:
            for group, own in written.items():
                pairs = [(prompt, f" {row.target}") for prompt, _ in questions[group]]
                own += [
                    tuple(score.token_ids) == tuple(score.top_ids)
                    for score in model.target_logprobs(pairs)
                ]
        if sys.stderr.isatty():
            print(f"\r{number}/{len(rows)}", end="", file=sys.stderr, flush=True)
    return {
        "model": name,
        "split": split,
        "config": job.config.model_dump(mode="json"),
        "cases": len(rows),
        "stopped": stopped,
        "n": {group: len(changed[group]) for group in GROUPS},
        "halved": {group: share([one >= 0.5 for one in fell[group]]) for group in GROUPS[:2]},
        "written": {group: share(own) for group, own in written.items()},
        "changed": {group: share(changed[group]) for group in GROUPS[2:]},
        "neurons": statistics.median(neurons) if neurons else None,
        "delta_bytes": statistics.median(sizes) if sizes else None,
        "seconds": round(statistics.median(seconds), 2) if seconds else None,
    }


def share(passed: Sequence[bool]) -> float | None:
    """Per cent, or None of nothing."""
    return round(100 * sum(passed) / len(passed), 1) if passed else None


def table(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    update = found["config"]["operation"] == "update"
    reached = found["written"] if update else found["halved"]
    heads = ["model", "operation", "cases", "stopped", "written" if update else "halved"]
    heads += ["paraphrases", "neighbours changed", "attributes changed", "neurons", "delta, bytes"]
    cells = [found["model"], found["config"]["operation"], found["cases"], found["stopped"]]
    cells += [f"{reached[group]} %" for group in GROUPS[:2]]
    cells += [f"{found['changed'][group]} %" for group in GROUPS[2:]]
    cells += [found["neurons"], found["delta_bytes"], found["seconds"]]
    lines = [" | ".join([*heads, "seconds"]), "|".join(["---"] * len(cells))]
    lines.append(" | ".join(map(str, cells)))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="facts-gpt2", choices=hubedit_demo.MODELS)
    parser.add_argument("--split", choices=["test", "dev"], default="test")
    parser.add_argument("--cases", type=int, default=100, help="how many cases (default 100)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the method"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as home:
        os.environ["HUBEDIT_HOME"] = home
        found = measure(args.model, args.split, args.cases, parse_settings(args.set))
    print(json.dumps(found, indent=1) if args.json else table(found))


if __name__ == "__main__":
    main()
