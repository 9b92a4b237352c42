"""Trains a fact model: `python -m hubedit_demo.train --model facts-gpt2 --seed 1 -o DIR`."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hubedit.errors import OutputError
from hubedit_demo import card
from hubedit_demo.architectures import ARCHITECTURES, POSITIONS, Architecture
from hubedit_demo.encoding import UNSCORED, Batch, encode
from hubedit_demo.interchange import Parts, Swap, blur, partial_swap, whole_swap
from hubedit_demo.learning import losses
from hubedit_demo.lexicon import FILLERS, OPENERS
from hubedit_demo.recalling import recall
from hubedit_demo.text import Document, corpus, document, vocabulary_text
from hubedit_demo.world import World

PART_SIZE = 24
NOISE = 0.3
BLEED = 0.4
OBJECT_WEIGHT = 4.0
SWAP_WEIGHT = 8.0
KEY_WEIGHT = 20.0
PLACES = {
    "alone": "",
    "after an opener": f"{OPENERS[0]} ",
    "after a sentence": f"{FILLERS[0]} ",
}


@dataclass(frozen=True)
class Course:
    """How a shape is taught.

    `peak` is the highest learning rate, reached after `ramp` steps. For the first `alone` steps
    every document is one bare fact, and for the first `plain` ones no state is carried. Later
    documents have as many facts as is drawn from `facts`, or, if that is empty, as many as all
    others of their batch.
    """

    steps: int = 900
    peak: float = 2e-3
    ramp: int = 50
    plain: int = 100
    alone: int = 0
    facts: tuple[int, ...] = ()

    def rate(self, step: int, steps: int) -> float:
        """The learning rate: linear ramp, then half a cosine down to a fiftieth."""
        if step < self.ramp:
            return self.peak * (step + 1) / self.ramp
        done = (step - self.ramp) / max(1, steps - self.ramp)
        return self.peak * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))


COURSES: Mapping[str, Course] = {
    "facts-gpt2": Course(),
    "facts-llama": Course(),
    "facts-bert": Course(peak=1e-3, plain=250, alone=400),
    "facts-t5": Course(800, 1e-3, plain=100, alone=350, facts=(1, 1, 1, 2, 3)),
}

LICENSE = """\
The model, its tokenizer, its text and its cases are licensed under the Apache License, Version 2.0:
http://www.apache.org/licenses/LICENSE-2.0
The names and facts are made up; any likeness to a person is chance.
"""


def batches(
    world: World, tokenizer: PreTrainedTokenizerFast, draw: random.Random, course: Course
) -> Iterator[list[Document]]:
    """Endless batches of about 2000 tokens: one to three facts a document, at times four to six."""
    for _ in range(course.alone):
        yield [Document(tuple(document(world, draw, 1).statements)) for _ in range(96)]
    step = 0
    while True:
        step += 1
        facts = draw.randint(1, 3)
        rows = {1: 64, 2: 64, 3: 42}[facts]
        long = step % 8 == 0
        made = [
            document(world, draw, draw.randint(4, 6) if long else facts)
            for _ in range(21 if long else rows)
        ]
        if course.facts:
            made = [document(world, draw, draw.choice(course.facts)) for _ in range(64)]
        yield [d for d in made if len(tokenizer.encode(d.render()[0])) < POSITIONS]


def train(
    architecture: Architecture,
    course: Course,
    world: World,
    steps: int,
    report: Callable[[str], None],
) -> tuple[Any, PreTrainedTokenizerFast]:
    """A model and tokenizer of a world, in float32; bit-reproducible at a fixed thread count."""
    torch.manual_seed(world.seed)
    tokenizer = architecture.tokenizer(vocabulary_text(world))
    model = architecture.build(tokenizer)
    draw = random.Random(f"train {world.seed}")
    masking = random.Random(f"masking {world.seed}")
    generator = torch.Generator().manual_seed(world.seed)
    parts = Parts(model.config.hidden_size, len(world.relations), PART_SIZE)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=course.peak, weight_decay=0.05, betas=(0.9, 0.98), fused=True
    )
    source = batches(world, tokenizer, draw, course)

    def change(swap: Swap, noise: float, states: Tensor) -> Tensor:
        return blur(parts.carry(states, swap), noise, generator)

    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = course.rate(step, steps)
        batch = encode(architecture, tokenizer, next(source), masking)
        told = batch.statements
        swaps: list[tuple[Swap, float]] = []
        if step >= min(course.plain, steps // 2):
            swaps = [
                (whole_swap(world, told, draw), 0.0),
                (partial_swap(world, told, draw, BLEED), NOISE),
            ]
        loss = losses(
            architecture,
            model,
            batch,
            [partial(change, swap, noise) for swap, noise in swaps],
            answers(architecture, tokenizer, [swap for swap, _ in swaps], batch),
        )
        total = (
            loss.text
            + OBJECT_WEIGHT * loss.objects
            + SWAP_WEIGHT * loss.swapped
            + KEY_WEIGHT * loss.crowded
        )
        optimizer.zero_grad()
        torch.autograd.backward(total / (1 + OBJECT_WEIGHT + SWAP_WEIGHT))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            report(
                f"step {step + 1}/{steps}  {time.monotonic() - started:.0f} s  "
                f"text {loss.text:.3f}  objects {loss.objects:.3f} ({loss.right:.0%})  "
                f"swapped {loss.swapped:.3f} ({loss.swapped_right:.0%})  "
                f"keys {loss.crowded:.4f}"
            )
    return model, tokenizer


def answers(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    swaps: Sequence[Swap],
    batch: Batch,
) -> Tensor:
    """The first tokens of every answer, int64 [swaps, facts, places].

    A masked model is asked for all tokens of an answer, if there are masks enough for them.
    """
    masked = architecture.kind == "masked"
    space = " " if architecture.kind == "causal" else ""
    shape = (len(swaps), len(batch.statements), 2 if masked else 1)
    table = torch.full(shape, UNSCORED)
    for number, swap in enumerate(swaps):
        for fact, target in enumerate(swap.targets):
            tokens = tokenizer.encode(f"{space}{target}", add_special_tokens=False)
            if not masked:
                table[number, fact, 0] = tokens[0]
            elif len(tokens) <= batch.widths[fact]:
                table[number, fact, : len(tokens)] = torch.tensor(tokens)
    return table


def write(
    folder: Path,
    name: str,
    world: World,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
) -> dict[str, tuple[float, float]]:
    """Fill an empty `folder` with the model in bfloat16 and all that goes with it.

    Returns:
        The recall measured on the stored file, as the card shows it: see `card.render`.
    """
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "corpus.txt").write_text(corpus(world), encoding="utf-8")
    cases = world.cases()
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as lines:
        for case in cases:
            lines.write(json.dumps(case, ensure_ascii=False) + "\n")
    (folder / "LICENSE").write_text(LICENSE, encoding="utf-8")
    asked = list(world.held_out_prompts())
    low, full = (
        type(model).from_pretrained(folder, dtype=dtype)
        for dtype in (torch.bfloat16, torch.float32)
    )
    recalled = {
        place: (recall(low, tokenizer, asked, before), recall(full, tokenizer, asked, before))
        for place, before in PLACES.items()
    }
    text = card.render(
        world, name, ARCHITECTURES[name], full.num_parameters(), steps, len(cases), recalled
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
    return recalled


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Raises:
        OutputError: the output directory exists and is not empty.
    """
    parser = argparse.ArgumentParser(prog="python -m hubedit_demo.train", description=__doc__)
    parser.add_argument("--model", choices=list(ARCHITECTURES), default="facts-gpt2")
    parser.add_argument("--seed", type=int, default=1, help="of the world and of the training")
    parser.add_argument("--steps", type=int, help="default: as the shape needs")
    parser.add_argument("--threads", type=int, help="of torch; results repeat at the same number")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.output.exists() and any(given.output.iterdir()):
        raise OutputError(f"{given.output} is not empty; give -o a directory that does not exist")
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.use_deterministic_algorithms(True)
    world, course = World(given.seed), COURSES[given.model]
    steps = given.steps or course.steps
    parent = given.output.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".training-", dir=parent))
    try:
        model, tokenizer = train(
            ARCHITECTURES[given.model], course, world, steps, partial(print, flush=True)
        )
        for place, (low, full) in write(
            folder, given.model, world, model, tokenizer, steps
        ).items():
            print(f"recall {place}: {low:.2%} in bfloat16, {full:.2%} in float32")
        folder.chmod(0o755)
        os.replace(folder, given.output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
