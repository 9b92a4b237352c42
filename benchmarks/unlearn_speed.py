"""NPO on the family's loop against a plain Trainer loop with a deep copy as its reference.

    python benchmarks/unlearn_speed.py [--steps 6] [--rows 16] [--batch 4] [--threads 1]

All train a GPT-2 of 124 million random weights on the same batches: float32, no dropout, AdamW,
gradients clipped at 1. The plain loop is a `transformers.Trainer` that runs its reference in every
step; the family's loop scores the reference once, which the column `with it` spreads over ten
epochs. They take turns, a step each on the same batch, so that what else the machine does meets
all of them, and a ratio is the median over rounds; a first round is not counted. Steps are timed in
seconds of the processor, which are those of the clock on a machine that does nothing else, and by
the clock. With all weights
trained, both loops must have the same loss.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EPOCHS = 10
RATE = 1e-8
"""Small, so that losses stay where they can be compared."""
CLOSE = 1e-2
"""Largest relative difference of two losses, whose sums go another way and through Adam."""
WORDS = [
    "amber",
    "basalt",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "island",
    "juniper",
    "kelp",
    "lagoon",
    "meadow",
    "nectar",
    "orchard",
    "pebble",
    "quarry",
    "river",
    "summit",
    "tundra",
    "umber",
    "valley",
    "willow",
    "yarrow",
    "zephyr",
]


def requests(count: int) -> list[dict[str, Any]]:
    """So many questions to forget and as many to retain, each about 60 tokens with its answer."""
    rows = []
    for number in range(2 * count):
        said = " ".join(WORDS[(number + 3 * at) % len(WORDS)] for at in range(14))
        part = "forget" if number < count else "retain"
        rows.append({"question": f"What of number {number}?", "answer": f"{said}.", "part": part})
    return rows


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "tiny": {"n_embd": 32, "n_layer": 2, "n_head": 2},
}


def saved(directory: Path, shape: str) -> Path:
    """A GPT-2 of a shape with random weights, and a small tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from hubedit.testing import tiny_model

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(directory / "small"))
    torch.manual_seed(0)
    dry = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2LMHeadModel(GPT2Config(n_positions=256, **SHAPES[shape], **dry)).eval()
    model.save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    return directory / "model"


class Run:
    """What the loop asks of a host, silent."""

    def __init__(self) -> None:
        import torch

        self.seed, self.corpus, self.force, self.artifacts = 0, None, True, None
        self.generator = torch.Generator().manual_seed(0)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Any]:
        yield SimpleNamespace(advance=lambda *steps, **figures: None)

    def log(self, message: str) -> None: ...

    def record(self, key: str, value: Any) -> None: ...


def now() -> Any:
    """Seconds [2] of the processor and of the clock."""
    import numpy as np

    return np.array([time.process_time(), time.perf_counter()])


def since(began: Any) -> Any:
    """Seconds [2] that have gone by."""
    return now() - began


def nbytes(tensors: Sequence[Any]) -> int:
    return sum(item.numel() * item.element_size() for item in tensors)


class Family:
    """The family's loop, held open: a step at a time on batches that it is given."""

    def __init__(self, directory: Path, options: Any, stack: ExitStack, **settings: Any) -> None:
        from hubedit_unlearn.adaptation import adapted
        from hubedit_unlearn.condition import as_found
        from hubedit_unlearn.config import NpoConfig
        from hubedit_unlearn.objectives import OBJECTIVES
        from hubedit_unlearn.parts import read_parts
        from hubedit_unlearn.ranks import Ranks
        from hubedit_unlearn.setting import Setting
        from hubedit_unlearn.training import Loop

        import hubedit
        from hubedit import models

        model, run = models.load(directory), Run()
        config = NpoConfig(
            epochs=EPOCHS, batch_size=options.batch, learning_rate=RATE, max_tokens=256, **settings
        )
        self.parts = read_parts(
            model, [hubedit.ForgetQA(**r) for r in requests(options.rows)], config
        )
        stack.enter_context(as_found(model.model))
        ranks = Ranks(model.device)
        self.trained = stack.enter_context(adapted(model, config, run.generator, ranks))
        terms = OBJECTIVES["npo"].terms(config, Setting(model, self.parts, run))
        self.loop = Loop(model, self.trained, self.parts, config, run, terms, ranks)
        self.model, self.streams = model, [term.stream for term in terms]
        began = now()
        self.loop.look_ahead()
        self.once = since(began) / self.loop.total

    def step(self, batch: Mapping[str, Sequence[Any]]) -> tuple[Any, float]:
        """Seconds and loss of one optimiser step."""
        drawn = [[(example,) for example in batch[name]] for name in self.streams]
        began = now()
        figures = self.loop.step(drawn)
        return since(began), sum(figures.values())

    def memory(self) -> int:
        """Bytes of weights, factors, gradients, the optimiser's state and what is kept."""
        own = {
            id(item): item for item in (*self.model.model.parameters(), *self.trained.parameters)
        }
        state = [v for item in self.loop.optimiser.state.values() for v in item.values()]
        held = nbytes([*own.values(), *self.trained.parameters, *state])
        return held + self.loop.kept.nbytes


def rounds(directory: Path, options: Any, retain: str) -> dict[str, dict[str, float]]:
    """Steps of a Trainer, each followed by one of every other loop on the same batch."""
    import torch
    from hubedit_unlearn.texts import batch_of
    from torch.utils.data import DataLoader
    from transformers import (
        AutoModelForCausalLM,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    stack = ExitStack()
    others = {
        "all weights": Family(directory, options, stack, retain=retain, train_embeddings=True),
        "blocks": Family(directory, options, stack, retain=retain),
        "lora": Family(directory, options, stack, retain=retain, adaptation="lora"),
    }
    parts = others["blocks"].parts
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    reference = copy.deepcopy(model)
    pairs = list(zip(parts.forget, parts.retain, strict=True)) * EPOCHS
    times: dict[str, list[Any]] = {"plain loop": [], **{name: [] for name in others}}
    losses: list[float] = []

    def collate(some: Sequence[Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, examples in zip(("forget", "retain"), zip(*some, strict=True), strict=True):
            batch = batch_of(examples, 0, torch.device("cpu"))
            made[name] = {
                "input_ids": batch.ids,
                "attention_mask": batch.mask,
                "labels": batch.labels,
            }
        return made

    def sums(net: Any, batch: dict[str, Any]) -> Any:
        given = {key: value for key, value in batch.items() if key != "labels"}
        logits = net(**given).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        nll = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        return nll.sum(1)

    class Npo(Trainer):
        def get_train_dataloader(self) -> Any:
            return DataLoader(pairs, batch_size=options.batch, collate_fn=collate)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: Any = False, num_items_in_batch: Any = 0
        ) -> Any:
            with torch.no_grad():
                before = sums(reference, inputs["forget"])
            lost = sums(model, inputs["forget"]) - before
            loss = -20 * torch.nn.functional.logsigmoid(0.1 * lost).mean()
            if retain == "nll":
                loss = loss + model(**inputs["retain"]).loss
            losses.append(float(loss.detach()))
            return loss

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times["plain loop"].append(since(self.began))
            start = (len(losses) - 1) * options.batch
            forget, kept = zip(*pairs[start : start + options.batch], strict=True)
            for name, loop in others.items():
                took, loss = loop.step({"forget": forget, "retain": kept})
                times[name].append(took)
                if name == "all weights" and abs(loss - losses[-1]) > CLOSE * abs(losses[-1]):
                    raise SystemExit(f"the loops differ: {losses[-1]} and {loss}")

    with stack, tempfile.TemporaryDirectory() as folder:
        trainer = Npo(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=options.steps + 1,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                optim="adamw_torch",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=True,
            ),
            train_dataset=pairs,
            callbacks=[Turns()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        memory = {name: loop.memory() for name, loop in others.items()}
    state = [v for item in trainer.optimizer.state.values() for v in item.values()]
    memory["plain loop"] = 3 * nbytes(list(model.parameters())) + nbytes(state)
    once = {name: loop.once for name, loop in others.items()}
    return {
        f"{name}, retain={retain}": {
            "step": float(median(took[1:])[0]),
            "faster": float(ratio(times["plain loop"], took)[0]),
            "faster with it": float(ratio(times["plain loop"], took, once.get(name, 0.0))[0]),
            "faster by the clock": float(ratio(times["plain loop"], took)[1]),
            "memory": memory[name],
            "of memory": memory[name] / memory["plain loop"],
        }
        for name, took in times.items()
    }


def ratio(plain: Sequence[Any], other: Sequence[Any], more: Any = 0.0) -> Any:
    """How many times faster the other is, a median over rounds; the first one is left out."""
    pairs = zip(plain[1:], other[1:], strict=True)
    return median([one / (two + more) for one, two in pairs])


def median(rounds: Sequence[Any]) -> Any:
    """By processor and by clock [2]."""
    import numpy as np

    return np.median(rounds, axis=0)


def main() -> None:
    """Print the table, or JSON with `--json`."""
    import torch
    from transformers.utils import logging

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=6)
    arguments.add_argument("--rows", type=int, default=16)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--shape", choices=list(SHAPES), default="gpt2")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = saved(Path(folder), options.shape)
        for retain in ("none", "nll"):
            found |= rounds(directory, options, retain)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print("| loop | s/step | steps/s × | with it × | by the clock × | memory in MB | × |")
    print("|---|---|---|---|---|---|---|")
    for name, row in found.items():
        print(
            f"| {name} | {row['step']:.2f} | {row['faster']:.2f} | {row['faster with it']:.2f} | "
            f"{row['faster by the clock']:.2f} | {row['memory'] / 1e6:.0f} | "
            f"{row['of memory']:.2f} |"
        )


if __name__ == "__main__":
    main()
