"""The one training loop of the family, from rows to a changed model; needs torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import torch

import hubedit
from hubedit_unlearn.adaptation import Trained, adapted
from hubedit_unlearn.condition import as_found, stored_dtype
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.losses import Objective, scored
from hubedit_unlearn.texts import Example, Parts, read_parts, turns
from hubedit_unlearn.watch import Watch


def unlearn(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.ForgetText],
    config: TrainingConfig,
    run: hubedit.RunContext,
    objective: Objective,
) -> None:
    """Train a model until it has forgotten; see `GradDiff.apply`."""
    parts = read_parts(model, rows, config)
    with as_found(model.model):
        dtype = stored_dtype(model.model.parameters())
        with adapted(model, config, run.generator) as trained:
            watch = Watch(model, trained, dtype, parts, config, run)
            _train(model, trained, parts, config, run, objective, watch)
            updates = trained.updates()
        for parameter, update in updates.items():
            model.update(parameter, update)


def _train(
    model: hubedit.EditableModel,
    trained: Trained,
    parts: Parts,
    config: TrainingConfig,
    run: hubedit.RunContext,
    objective: Objective,
    watch: Watch,
) -> None:
    """Take optimiser steps until the watch says that it is done, or steps run out."""
    size = config.batch_size * config.accumulation
    sizes = [min(size, len(part)) for part in (parts.forget, parts.retain)]
    total = config.steps
    if config.epochs is not None:
        total = math.ceil(config.epochs * len(parts.forget) / sizes[0])
    streams = [
        drawn(part, count, run.generator)
        for part, count in zip((parts.forget, parts.retain), sizes, strict=True)
    ]
    peak = config.learning_rate or default_rate(model, config)
    optimiser = torch.optim.AdamW(trained.parameters, lr=peak, weight_decay=config.weight_decay)
    with run.progress("forgetting", total=total) as bar:
        for step in range(1, total + 1):
            for group in optimiser.param_groups:
                group["lr"] = peak * schedule(config, step, total)
            forget, retain = (next(stream) for stream in streams)
            figures = gradients(model, forget, retain, config.accumulation, objective)
            if not all(map(math.isfinite, figures)):
                raise hubedit.MethodError(
                    f"the loss was no longer finite at step {step}; use a smaller learning_rate"
                )
            torch.nn.utils.clip_grad_norm_(trained.parameters, config.max_gradient)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            bar.advance(forget=figures[0], retain=figures[1])
            if step % config.evaluate_every == 0 and watch.look(step):
                break
    watch.conclude(step)


def gradients(
    model: hubedit.EditableModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    pieces: int,
    objective: Objective,
) -> tuple[float, float]:
    """Add the gradient of one step's loss to the parameters, a piece of the batch at a time.

    Returns the mean cross-entropies of the forget and the retain tokens, in nats.
    """
    parts, means = (forget, retain), [0.0, 0.0]
    tokens = [sum(example.labelled for example in part) for part in parts]
    for piece in zip(*(split(part, pieces) for part in parts), strict=True):
        one, other = (
            scored(model, own, count, len(part))
            for own, count, part in zip(piece, tokens, parts, strict=True)
        )
        torch.autograd.backward(objective(one, other))
        for index, share in enumerate((one, other)):
            means[index] += float(share.nll.detach().sum()) / share.tokens
    return means[0], means[1]


def default_rate(model: hubedit.EditableModel, config: TrainingConfig) -> float:
    """The learning rate where none is set: it goes with 1/width (Yang et al. 2022, table 3)."""
    width = int(model.model.get_parameter(f"{model.layout.embeddings}.weight").shape[1])
    return (0.32 if config.adaptation == "lora" else 0.032) / width


def schedule(config: TrainingConfig, step: int, total: int) -> float:
    """The learning rate of a step, counted from 1, as a part of the highest."""
    if step <= config.warmup:
        return step / config.warmup
    if config.decay == "constant":
        return 1.0
    return (total - step + 1) / max(total - config.warmup, 1)


def drawn(
    examples: Sequence[Example], size: int, generator: torch.Generator
) -> Iterator[list[Example]]:
    """Examples in shuffled rounds, `size` at a time."""
    order = turns(len(examples), generator)
    while True:
        yield [examples[index] for index in islice(order, size)]


def split(examples: Sequence[Example], parts: int) -> list[Sequence[Example]]:
    """Examples in so many runs, as even as can be."""
    bounds = [len(examples) * part // parts for part in range(parts + 1)]
    return [examples[start:end] for start, end in pairwise(bounds)]
