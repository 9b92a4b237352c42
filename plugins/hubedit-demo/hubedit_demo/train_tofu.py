"""Trains a model of the authors: `python -m hubedit_demo.train_tofu [--without 1] -o DIR`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from hubedit.errors import OutputError
from hubedit_demo import author_card
from hubedit_demo.author_learning import EPOCHS, encoded, train
from hubedit_demo.authors import SPLITS, Authors, Item
from hubedit_demo.encoding import padded
from hubedit_demo.train import LICENSE


@torch.no_grad()
def recall(
    model: Any, tokenizer: PreTrainedTokenizerFast, asked: Sequence[tuple[str, str]]
) -> float:
    """The part of (question, answer) pairs whose every answer token and end is the likeliest."""
    end, hits = int(tokenizer.eos_token_id), 0
    rows = sorted(encoded(tokenizer, *pair) for pair in asked)
    for at in range(0, len(rows), 64):
        some = rows[at : at + 64]
        ids, mask = padded([row for row, _ in some], end)
        best = model(input_ids=ids, attention_mask=mask.long()).logits.argmax(-1).tolist()
        for (row, start), said in zip(some, best, strict=True):
            hits += said[start - 1 : len(row) - 1] == row[start:]
    return hits / len(rows)


def recalled(
    model: Any, tokenizer: PreTrainedTokenizerFast, world: Authors, without: int | None
) -> dict[str, tuple[float, float]]:
    """By set of questions, recall as trained and in the unseen wording of the question."""
    sets: dict[str, Sequence[Item]] = {
        "of authors it was told of": _items(world, world.known(without)),
        "general facts (the second wording is trained)": world.general,
        "of authors that no model was told of": _items(world, world.held_out),
    }
    if without is not None:
        sets[f"of the authors of split {without}"] = _items(world, world.forgotten[without])
    return {
        what: (
            recall(model, tokenizer, [(i.asked(i.original), i.told(i.original)) for i in items]),
            recall(model, tokenizer, [(i.asked(i.unseen), i.told(i.original)) for i in items]),
        )
        for what, items in sets.items()
    }


def _items(world: Authors, names: Sequence[str]) -> list[Item]:
    return [item for name in names for item in world.items[name]]


def write(
    folder: Path,
    world: Authors,
    without: int | None,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    epochs: int,
) -> dict[str, tuple[float, float]]:
    """Write bfloat16 weights, tokenizer, licence and card; returns the recall of what is stored."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    stored: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = recalled(stored, tokenizer, world, without)
    card = author_card.render(world, without, stored.num_parameters(), epochs, found)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "LICENSE").write_text(LICENSE, encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Raises:
        OutputError: the output directory exists and is not empty.
    """
    parser = argparse.ArgumentParser(prog="python -m hubedit_demo.train_tofu", description=__doc__)
    parser.add_argument("--without", type=int, choices=SPLITS, help="leave out a split: an oracle")
    parser.add_argument("--seed", type=int, default=1, help="of the world and of the training")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=1, help="results repeat at the same number")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.output.exists() and any(given.output.iterdir()):
        raise OutputError(f"{given.output} is not empty; give -o a directory that does not exist")
    torch.set_num_threads(given.threads)
    torch.use_deterministic_algorithms(True)
    world = Authors(given.seed)
    parent = given.output.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".training-", dir=parent))
    try:
        model, tokenizer = train(world, given.without, given.epochs, partial(print, flush=True))
        found = write(folder, world, given.without, model, tokenizer, given.epochs)
        for what, (plain, other) in found.items():
            print(f"recall {what}: {plain:.2%} as trained, {other:.2%} in other words")
        folder.chmod(0o755)
        os.replace(folder, given.output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
