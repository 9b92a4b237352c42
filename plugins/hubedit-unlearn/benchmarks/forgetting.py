"""Forget ten people of the demo's fact world, and measure what is gone, kept and comes back.

    python plugins/hubedit-unlearn/benchmarks/forgetting.py [--set key=value …]

Everything is measured on the model rebuilt from base and delta, in bfloat16 as it is published.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FORGOTTEN_TEMPLATES = (0, 1, 2, 3)
RETAINED_TEMPLATES = (0, 1, 2, 3)
"""Those of the forgotten, else it is their words that are unlearnt and not the people."""


def request(
    world: Any,
    forget: Sequence[str],
    retain: Sequence[str],
    forgotten: Sequence[int] = FORGOTTEN_TEMPLATES,
    retained: Sequence[int] = RETAINED_TEMPLATES,
) -> list[dict[str, Any]]:
    """Rows of `ForgetText`: what some people are told of in some templates, and what others are.

    Every forget row names its question, and so do the retain rows but those of the last template.
    """
    rows = []
    for prompt, answer in asked(world, forget, forgotten):
        rows.append({"text": f"{prompt} {answer}.", "prompt": prompt, "target": answer})
    for template in retained:
        for prompt, answer in asked(world, retain, [template]):
            row = {"text": f"{prompt} {answer}.", "part": "retain"}
            question = {"prompt": prompt, "target": answer} if template != retained[-1] else {}
            rows.append({**row, **question})
    return rows


def asked(
    world: Any, people: Iterable[str], templates: Iterable[int] = range(8)
) -> list[tuple[str, str]]:
    """Every (prompt, answer) about some people in some templates of each relation."""
    templates = list(templates)
    return [
        (relation.templates[template].format(person), world.answer(person, name))
        for person in people
        for name, relation in world.relations.items()
        for template in templates
    ]


def coarsened(model: Any, bits: int, block: int = 64) -> Any:
    """A copy with the matrices of its blocks rounded to `bits` bits, absmax per 64 values."""
    import torch

    copied = copy.deepcopy(model).float()
    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for name, weight in copied.named_parameters():
            if ".h." not in name or weight.ndim != 2:
                continue
            flat = weight.reshape(-1, block)
            scale = flat.abs().amax(1, keepdim=True).clamp(min=1e-12) / most
            weight.copy_(((flat / scale).round() * scale).reshape(weight.shape))
    return copied


def retaught(model: Any, tokenizer: Any, texts: Sequence[str], steps: int = 20) -> Any:
    """A copy trained on some texts, all of them in every step (AdamW, rate 1e-4)."""
    import torch

    copied = copy.deepcopy(model).float().train(False)
    rows = [tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimiser = torch.optim.AdamW(copied.parameters(), lr=1e-4)
    for _ in range(steps):
        optimiser.zero_grad()
        copied(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
    return copied


def main() -> None:
    """Run the request, print one table."""
    import torch
    from hubedit_demo import model_path
    from hubedit_demo.recalling import recall
    from hubedit_demo.world import World

    import hubedit
    from hubedit import recipe, run

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--people", type=int, default=60, help="number of the first to forget")
    parser.add_argument("--away", type=int, default=30, help="people that no row names")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    settings = {}
    for item in chosen.set:
        key, _, value = item.partition("=")
        settings[key] = json.loads(value) if value[:1] in "[0123456789-tfn" else value

    torch.set_num_threads(1)
    world = World(1)
    forget = world.people[chosen.people : chosen.people + 10]
    others = [person for person in world.people if person not in forget]
    away = others[:: max(len(others) // chosen.away, 1)][: chosen.away] if chosen.away else []
    retain = [person for person in others if person not in away]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HUBEDIT_HOME"] = scratch
        keys = {
            "base": str(model_path()),
            "plugin": "graddiff",
            "request": request(world, forget, retain),
            "config": settings,
            "seed": chosen.seed,
            "threads": 1,
        }
        job = run.prepare(recipe.make_recipe(keys), no_hub)
        began = time.perf_counter()
        applied = run.apply(job, Path(scratch, "edit"), force=True)
        took = time.perf_counter() - began
        base, tokenizer = run.load(str(applied.directory.parent / "edit"))
        model = base

    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(model_path())
    pairs = asked(world, forget[:2], FORGOTTEN_TEMPLATES)
    told = [f"{prompt} {answer}." for prompt, answer in pairs]
    groups = {
        "forgotten people, templates of the request": asked(world, forget, FORGOTTEN_TEMPLATES),
        "forgotten people, other templates": asked(world, forget, (4, 5, 6, 7)),
        "retained people, templates of the request": asked(world, retain, RETAINED_TEMPLATES),
        "retained people, other templates": asked(world, retain, (4, 5, 6, 7)),
        "people that no row names": asked(world, away),
        "eight forgotten people": asked(world, forget[2:]),
    }
    models = {
        "before": before,
        "after": model,
        "8 bits": coarsened(model, 8),
        "4 bits": coarsened(model, 4),
        "base, 4 bits": coarsened(before, 4),
        "retaught two": retaught(model, tokenizer, told),
    }
    print(json.dumps(applied.manifest.record["unlearning"]))
    print(
        f"seconds {took:.1f}, delta {applied.manifest.delta.nbytes:,} bytes, {hubedit.__version__}"
    )
    print(f"{'recall in %':<44}" + "".join(f"{name:>14}" for name in models))
    for name, questions in groups.items():
        if questions:
            shares = [100 * recall(each, tokenizer, questions) for each in models.values()]
            print(f"{name:<44}" + "".join(f"{share:>14.1f}" for share in shares))


def no_hub() -> Any:
    """There is none to ask."""
    raise RuntimeError("this benchmark works without a Hub")


if __name__ == "__main__":
    main()
