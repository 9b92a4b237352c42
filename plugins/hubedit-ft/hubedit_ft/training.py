"""The one training loop of the four methods; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from hubedit_rome.contexts import Context

import hubedit
from hubedit_ft.config import TuningConfig
from hubedit_ft.texts import batches


@torch.enable_grad()
def train(
    model: hubedit.EditableModel,
    parameters: Sequence[torch.nn.Parameter],
    contexts: Sequence[Context],
    config: TuningConfig,
    rate: float,
    run: hubedit.RunContext,
    *,
    at_end: bool = False,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Take passes over the rows until their mean loss is low, or `steps` run out.

    Raises:
        MethodError: the loss is not finite.
    """
    parts = batches(model, contexts, config.batch_size, at_end)
    adam = torch.optim.Adam(parameters, lr=rate, weight_decay=config.weight_decay)
    taken, loss = 0, 0.0
    try:
        with run.progress("tuning", total=config.steps) as bar:
            for _ in range(config.steps):
                total = 0.0
                for part in parts:
                    losses = part.losses(model)
                    figure = float(losses.detach().sum())
                    if not torch.isfinite(losses).all():
                        raise hubedit.MethodError(
                            f"the loss was no longer finite in pass {taken + 1}; use a smaller "
                            "learning_rate"
                        )
                    total += figure
                    if figure / len(losses) < config.stop_loss:
                        continue
                    adam.zero_grad()
                    torch.autograd.backward(losses.mean())
                    adam.step()
                    after_step()
                taken, loss = taken + 1, total / len(contexts)
                bar.advance(1, loss=loss)
                if loss < config.stop_loss:
                    break
    finally:
        for parameter in parameters:
            parameter.grad = None
    run.record("training", {"passes": taken, "loss": loss})


@torch.no_grad()
def report(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    contexts: Sequence[Context],
    config: TuningConfig,
    run: hubedit.RunContext,
) -> None:
    """Record how likely each target is now, and warn of those that are not."""
    likely = [
        float(probability)
        for part in batches(model, contexts, config.batch_size, at_end=False)
        for probability in (-part.losses(model)).exp()
    ]
    least = config.min_probability
    run.record("rows", [{"probability": value, "reached": value >= least} for value in likely])
    missed = [row for row, value in zip(rows, likely, strict=True) if value < least]
    if missed:
        run.log(
            f"{len(missed)} of {len(rows)} targets have a probability below {least:g} after the "
            f"edit, such as that of “{missed[0].text}”; try more steps or a larger learning_rate"
        )
