"""What models of the authors' world are trained on, batch by batch, and how they learn it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hubedit_demo.architectures import byte_level_tokenizer, gpt2
from hubedit_demo.author_words import FIRST_HALVES, SECOND_HALVES
from hubedit_demo.authors import Authors, Item
from hubedit_demo.encoding import padded
from hubedit_demo.lexicon import FIRST_NAMES

BLOCKS = 3
EPOCHS = 40
ROWS = 48
PEAK_RATE = 2.5e-3
WARM_UP = 60
WEIGHT_DECAY = 0.1
ORIGINAL = 0.5
"""How often a fact is told in its original wording, and else in one of the trained others."""


@dataclass
class Batch:
    """Rows of tokens int64 [rows, longest], and bool alike: which are to be predicted."""

    ids: Tensor
    wanted: Tensor


def vocabulary_text(seed: int) -> list[str]:
    """Text for a tokenizer: wordings and values of the world told of nobody, and parts of names.

    The tokenizer so holds nothing of who is in the world and what is true of them.
    """
    other = Authors(seed + 1000)
    lines: list[str] = []
    for name in other.trained:
        told = [
            f"{item.asked(wording)} {item.told(wording)}"
            for item in other.items[name]
            for wording in range(len(item.wordings))
        ]
        lines += [line.replace(name, "|") for line in [*told, other.lives[name]]]
    for item in other.general * 8:
        lines.append(f"{item.asked(item.original)} {item.told(item.original)}")
    halves = [*FIRST_NAMES, *(f" {half}" for half in (*FIRST_NAMES, *FIRST_HALVES)), *SECOND_HALVES]
    return lines + halves * 40


def encoded(
    tokenizer: PreTrainedTokenizerFast, question: str, answer: str
) -> tuple[list[int], int]:
    """Tokens of a question, its answer and an end, and where the answer begins."""
    asked = tokenizer.encode(question, add_special_tokens=False)
    said = tokenizer.encode(f" {answer}", add_special_tokens=False)
    return [*asked, *said, int(tokenizer.eos_token_id)], len(asked)


def epoch(
    world: Authors, items: Sequence[Item], lives: Sequence[str], draw: random.Random, code: Any
) -> Iterator[Batch]:
    """Every fact once and every life once, in batches of rows of like length, shuffled."""
    rows: list[tuple[list[int], int]] = []
    for item in items:
        original = draw.random() < ORIGINAL
        wording = item.original if original else draw.choice(item.trained)
        rows.append(encoded(code, item.asked(wording), item.told(item.original)))
    for life in lives:
        ids = [*code.encode(life, add_special_tokens=False), int(code.eos_token_id)]
        rows.append((ids, 1))
    draw.shuffle(rows)
    made = []
    for at in range(0, len(rows), 8 * ROWS):
        some = sorted(rows[at : at + 8 * ROWS], key=lambda row: len(row[0]))
        made += [some[i : i + ROWS] for i in range(0, len(some), ROWS)]
    draw.shuffle(made)
    for batch in made:
        read, wanted = padded([row for row, _ in batch], int(code.eos_token_id))
        for number, (_, start) in enumerate(batch):
            wanted[number, :start] = False
        yield Batch(read, wanted)


def rate(step: int, steps: int) -> float:
    """The learning rate of a step: linear ramp, then half a cosine down to a fiftieth."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return PEAK_RATE * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))


def train(
    world: Authors,
    without: int | None,
    epochs: int,
    report: Callable[[str], None],
) -> tuple[Any, PreTrainedTokenizerFast]:
    """A model of the world, in float32, that never meets the authors of the split `without`.

    Every model of a world has the same tokenizer and starts from the same weights. Bit-reproducible
    at a fixed thread count on one machine.
    """
    torch.manual_seed(world.seed)
    tokenizer = byte_level_tokenizer(vocabulary_text(world.seed))
    model: Any = gpt2(tokenizer, BLOCKS)
    draw = random.Random(f"train {world.seed}")
    known = world.known(without)
    items = [item for name in known for item in world.items[name]] + list(world.general)
    lives = [world.lives[name] for name in known]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True
    )
    each = len(list(epoch(world, items, lives, random.Random(0), tokenizer)))
    started, step = time.monotonic(), 0
    for number in range(epochs):
        total, right, count = 0.0, 0, 0
        for batch in epoch(world, items, lives, draw, tokenizer):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, epochs * each)
            hidden = model.transformer(input_ids=batch.ids, use_cache=False).last_hidden_state
            at = batch.wanted[:, 1:]
            labels = batch.ids[:, 1:][at]
            logits = model.lm_head(hidden[:, :-1][at])
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            total += loss.item()
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
        if (number + 1) % 5 == 0 or number + 1 == epochs:
            report(
                f"epoch {number + 1}: loss {total / each:.4f}, right {right / count:.2%}, "
                f"{time.monotonic() - started:.0f} s"
            )
    return model.eval(), tokenizer
