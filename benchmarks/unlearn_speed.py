"""NPO on the family's loop against a plain Trainer loop with a deep copy as its reference.

    python benchmarks/unlearn_speed.py [--steps 6] [--rows 16] [--batch 4] [--threads 1]

Both train a GPT-2 of 124 million random weights on the same batches with the same optimiser. The
plain loop is a `transformers.Trainer` that runs its reference in every step; the family's loop
scores the reference once, which the column `with it` spreads over ten epochs.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EPOCHS = 10
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


def saved(directory: Path) -> Path:
    """A GPT-2 of the 124M shape with random weights, and a small tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from hubedit.testing import tiny_model

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(directory / "small"))
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_positions=256)).eval()
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


def nbytes(tensors: Sequence[Any]) -> int:
    return sum(item.numel() * item.element_size() for item in tensors)


def family(directory: Path, options: Any, **settings: Any) -> dict[str, float]:
    """Steps of NPO on the family's loop."""
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
        epochs=EPOCHS, batch_size=options.batch, learning_rate=1e-5, max_tokens=256, **settings
    )
    rows = [hubedit.ForgetQA(**row) for row in requests(options.rows)]
    parts = read_parts(model, rows, config)
    objective = OBJECTIVES["npo"]
    with as_found(model.model), adapted(model, config, run.generator) as trained:
        terms = objective.terms(config, Setting(model, parts, run))
        loop = Loop(model, trained, parts, config, run, terms, Ranks(model.device))
        began = time.perf_counter()
        loop.look_ahead()
        once = time.perf_counter() - began
        drawn = loop.draws(run.generator)
        loop.step(next(drawn))
        times = []
        for _ in range(options.steps):
            began = time.perf_counter()
            loop.step(next(drawn))
            times.append(time.perf_counter() - began)
        state = [v for item in loop.optimiser.state.values() for v in item.values()]
        memory = nbytes(list(model.model.parameters())) + nbytes(trained.parameters) + nbytes(state)
        memory += loop.kept.nbytes
    step = sorted(times)[len(times) // 2]
    return {"step": step, "with it": step + once / loop.total, "memory": memory}


def plain(directory: Path, options: Any, retain: str) -> dict[str, float]:
    """The same steps in a Trainer: a deep copy as reference, masks, all logits."""
    import torch
    from hubedit_unlearn.config import NpoConfig
    from hubedit_unlearn.parts import read_parts
    from hubedit_unlearn.texts import batch_of
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    import hubedit
    from hubedit import models

    loaded = models.load(directory)
    rows = [hubedit.ForgetQA(**row) for row in requests(options.rows)]
    parts = read_parts(loaded, rows, NpoConfig(max_tokens=256))
    del loaded
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    reference = copy.deepcopy(model)
    pairs = list(zip(parts.forget, parts.retain, strict=True)) * EPOCHS

    def collate(some: Sequence[Any]) -> dict[str, Any]:
        made = {}
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
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: Any = False, num_items_in_batch: Any = 0
        ) -> Any:
            with torch.no_grad():
                before = sums(reference, inputs["forget"])
            lost = sums(model, inputs["forget"]) - before
            loss = -20 * torch.nn.functional.logsigmoid(0.1 * lost).mean()
            if retain == "nll":
                loss = loss + model(**inputs["retain"]).loss
            return loss

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter() - self.began)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Npo(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=options.batch,
                max_steps=options.steps + 1,
                learning_rate=1e-5,
                lr_scheduler_type="constant",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=True,
            ),
            train_dataset=pairs,
            data_collator=collate,
            callbacks=[clock],
        )
        trainer.train()
    state = [v for item in trainer.optimizer.state.values() for v in item.values()]
    weights = list(model.parameters())
    memory = 3 * nbytes(weights) + nbytes(state)
    times = sorted(clock.times[1:])
    step = times[len(times) // 2]
    return {"step": step, "with it": step, "memory": memory}


def main() -> None:
    """Print the table, or JSON with `--json`."""
    import torch
    from transformers.utils import logging

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=6)
    arguments.add_argument("--rows", type=int, default=16)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = saved(Path(folder))
        for retain in ("none", "nll"):
            same = {"retain": retain, "train_embeddings": True}
            found[f"plain loop, retain={retain}"] = plain(directory, options, retain)
            found[f"all weights, retain={retain}"] = family(directory, options, **same)
            found[f"blocks, retain={retain}"] = family(directory, options, retain=retain)
            lora = {"retain": retain, "adaptation": "lora"}
            found[f"lora, retain={retain}"] = family(directory, options, **lora)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print("| loop | s/step | steps/s × | with it × | parameter memory in MB | × |")
    print("|---|---|---|---|---|---|")
    for name, row in found.items():
        base = found[f"plain loop, {name.split(', ')[1]}"]
        print(
            f"| {name} | {row['step']:.2f} | {base['step'] / row['step']:.2f} | "
            f"{base['step'] / row['with it']:.2f} | {row['memory'] / 1e6:.0f} | "
            f"{row['memory'] / base['memory']:.2f} |"
        )


if __name__ == "__main__":
    main()
