"""The one training loop of the family, from rows to a changed model; needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import TypeVar

import torch

import hubedit
from hubedit_unlearn.adaptation import Trained, adapted
from hubedit_unlearn.checkpoints import Checkpoints
from hubedit_unlearn.condition import as_found, recomputing, stored_dtype
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.kept import Kept
from hubedit_unlearn.losses import Term
from hubedit_unlearn.objectives import OBJECTIVES, Objective
from hubedit_unlearn.parts import Parts, read_parts
from hubedit_unlearn.ranks import Ranks
from hubedit_unlearn.scoring import Share, observed, scored
from hubedit_unlearn.setting import Rule, Setting
from hubedit_unlearn.sharding import by_kind, trainee
from hubedit_unlearn.streams import Drawing, Item
from hubedit_unlearn.texts import Example
from hubedit_unlearn.watch import Watch

T = TypeVar("T")


def unlearn(
    method: str,
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.ForgetRow],
    config: TrainingConfig,
    run: hubedit.RunContext,
) -> None:
    """Train a model until it has forgotten; see `Unlearning.apply`."""
    objective = OBJECTIVES[method]
    config = objective.settled(config, model)
    parts = read_parts(model, rows, config, objective.needs(config))
    ranks = Ranks(model.device)
    with as_found(model.model):
        dtype = stored_dtype(model.model.parameters())
        with trainee(model, ranks) as own:
            updates = _trained(objective, own, dtype, parts, config, run, ranks)
        for parameter, update in updates.items():
            model.update(parameter, update)


def _trained(
    objective: Objective,
    model: hubedit.EditableModel,
    dtype: torch.dtype,
    parts: Parts,
    config: TrainingConfig,
    run: hubedit.RunContext,
    ranks: Ranks,
) -> Mapping[str, hubedit.LowRank]:
    """Train what there is to train; returns the change of weights not changed in place."""
    with adapted(model, config, run.generator, ranks) as trained:
        watch = Watch(model, trained, dtype, parts, config, run)
        setting = Setting(model, parts, run)
        terms = objective.terms(config, setting)
        watch.holding = any(term.holds for term in terms)
        with recomputing(model.model, config.activation_checkpointing):
            loop = Loop(model, trained, parts, config, run, terms, ranks)
            step = loop.run(watch, objective.rule(config, setting))
        objective.finish(config, setting, trained, watch)
        watch.conclude(step, ranks.record)
        run.record("compute", loop.work(watch))
        return trained.updates()


class Loop:
    """Optimiser steps on one loss, over one rank's part of every batch."""

    def __init__(
        self,
        model: hubedit.EditableModel,
        trained: Trained,
        parts: Parts,
        config: TrainingConfig,
        run: hubedit.RunContext,
        terms: Sequence[Term],
        ranks: Ranks,
    ) -> None:
        self._model, self._trained, self._parts = model, trained, parts
        self._config, self._run, self._terms, self._ranks = config, run, terms, ranks
        self.sizes = sizes(parts, config)
        self._tokens = 0
        self.total = config.steps
        if config.epochs is not None:
            self.total = math.ceil(config.epochs * len(parts.forget) / self.sizes.forget)
        self.peak = config.learning_rate or default_rate(model, config)
        self._cast = partial(cast, config, model.device)
        self.kept = Kept(model, config, terms, self._cast)
        self.optimiser = torch.optim.AdamW(
            [{"params": kind} for kind in by_kind(trained.parameters)],
            lr=self.peak,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def run(self, watch: Watch, rule: Rule | None = None) -> int:
        """Take steps until the watch or the rule says that it is done, or steps run out.

        Returns the number of the last step.

        Raises:
            MethodError: the loss is no longer finite.
        """
        self.look_ahead()
        drawn = self.draws(self._run.generator)
        checkpoints = Checkpoints(
            self._model,
            self._trained,
            self.optimiser,
            self._parts,
            self._config,
            self._run,
            self._ranks,
        )
        with checkpoints, self._run.progress("forgetting", total=self.total) as bar:
            step = done = checkpoints.resume(watch)
            for _ in range(done):
                self._count(next(drawn))
            bar.advance(done)
            for step in range(done + 1, self.total + 1):
                for group in self.optimiser.param_groups:
                    group["lr"] = self.peak * schedule(self._config, step, self.total)
                items = next(drawn)
                self._count(items)
                figures = self.step(items)
                if not all(map(math.isfinite, figures.values())):
                    raise hubedit.MethodError(
                        f"the loss was no longer finite at step {step}; use a smaller learning_rate"
                    )
                shown = {name.replace(" ", "_"): value for name, value in figures.items()}
                bar.advance(1, **shown)
                ended = step % self._config.evaluate_every == 0 and watch.look(step)
                ruled = not ended and rule is not None and rule(step, figures)
                ended, watch.ruled = self._ranks.agreed((ended, ruled))
                if ended or watch.ruled:
                    break
                checkpoints.save(step, watch)
        return step

    def _count(self, drawn: Sequence[Sequence[Item]]) -> None:
        self._tokens += sum(len(example.ids) for items in drawn for example in flat(items))

    def work(self, watch: Watch) -> dict[str, int]:
        """Tokens of all ranks that were trained on, and those that were read besides.

        Read are the texts of which the model before was asked, and those of every look; a second
        forward pass where activations are computed again counts as reading.
        """
        again = self._tokens if self._config.activation_checkpointing else 0
        read = self.kept.tokens + watch.tokens * len(watch.looks) + again
        return {"tokens_trained": self._tokens, "tokens_read": read}

    def draws(self, generator: torch.Generator) -> Iterator[list[list[Item]]]:
        """The items of each step, term by term, without end."""
        drawing = Drawing(self._model, self._parts, self._config, self.sizes.items, generator)
        streams = [drawing.named(term.stream) for term in self._terms]
        while True:
            yield [next(stream) for stream in streams]

    def step(self, drawn: Sequence[Sequence[Item]]) -> dict[str, float]:
        """Take one optimiser step; returns what each term gives, by its stream."""
        figures = self.gradients(drawn)
        self._ranks.clip(self._trained.parameters, self._config.max_gradient)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return figures

    def gradients(self, drawn: Sequence[Sequence[Item]]) -> dict[str, float]:
        """Add the gradient of one step's loss to the parameters, a batch at a time.

        Args:
            drawn: the items of each term.

        Returns:
            Each term by its stream, unweighted.
        """
        values = torch.zeros(len(self._terms), dtype=torch.float64)
        for number, (term, items) in enumerate(zip(self._terms, drawn, strict=True)):
            share = Share.of(flat(items))
            batches = split(items, self.sizes.batches * self._ranks.count)
            for batch, counts in self._ranks.mine(batches):
                loss = self._loss(term, flat(batch), share)
                torch.autograd.backward(term.weight * loss * counts)
                values[number] += float(loss.detach()) * counts
        self._ranks.sum_gradients(self._trained.parameters)
        values = self._ranks.sum(values)
        return dict(zip((term.stream for term in self._terms), values.tolist(), strict=True))

    def _loss(self, term: Term, examples: Sequence[Example], share: Share) -> torch.Tensor:
        before = self.kept.of(term, examples)
        with self._cast():
            if term.layer is not None:
                return term.loss(observed(self._model, examples, term.layer, share, before))
            return term.loss(scored(self._model, examples, share, before))

    def look_ahead(self) -> None:
        """Keep what the terms ask of the model before, of the examples that will be drawn."""
        if all(term.before is None for term in self._terms):
            return
        copied = torch.Generator()
        copied.set_state(self._run.generator.get_state())
        ahead = self.draws(copied)
        met: list[dict[Example, None]] = [{} for _ in self._terms]
        for _ in range(self.total):
            for seen, items in zip(met, next(ahead), strict=True):
                seen.update(dict.fromkeys(flat(items)))
        for term, seen in zip(self._terms, met, strict=True):
            self.kept.compute(term, seen, self._run)


@dataclass(frozen=True)
class Sizes:
    """How many items a step draws at most, how many forget texts those are, in how many batches."""

    items: int
    forget: int
    batches: int


def sizes(parts: Parts, config: TrainingConfig) -> Sizes:
    """The sizes of a step."""
    if config.full_batch:
        count = len(parts.forget)
        return Sizes(count, count, math.ceil(count / config.batch_size))
    items = config.batch_size * config.accumulation
    return Sizes(items, min(items, len(parts.forget)), config.accumulation)


def cast(config: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    """The precision of matrix products while the `with` lasts."""
    if config.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def default_rate(model: hubedit.EditableModel, config: TrainingConfig) -> float:
    """The learning rate where none is set: it goes with 1/width (Yang et al. 2022, table 3)."""
    width = int(model.model.get_parameter(f"{model.layout.embeddings}.weight").shape[1])
    return (0.32 if config.adaptation == "lora" else 0.032) / width


def schedule(config: TrainingConfig, step: int, total: int) -> float:
    """The learning rate of a step, counted from 1, as a part of the highest."""
    if step <= config.warmup:
        return step / config.warmup
    left = (total - step + 1) / max(total - config.warmup, 1)
    return DECAYS[config.decay](left)


DECAYS: Mapping[str, Callable[[float], float]] = {
    "constant": lambda left: 1.0,
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 - 0.5 * math.cos(math.pi * left),
}
"""The rate as a part of the highest, by the part of the steps that is left."""


def flat(items: Sequence[Item]) -> list[Example]:
    """The examples of items, in order."""
    return list(chain.from_iterable(items))


def split(values: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Values in so many runs, as even as can be."""
    bounds = [len(values) * part // parts for part in range(parts + 1)]
    return [values[start:end] for start, end in pairwise(bounds)]
