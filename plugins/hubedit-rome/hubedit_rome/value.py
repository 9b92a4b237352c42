"""The value v*: what the matrix must put out at the subject so that the model says the target."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

import hubedit
from hubedit_rome.above import read_whole
from hubedit_rome.batches import Asked, Batch
from hubedit_rome.config import RomeConfig
from hubedit_rome.contexts import Context, essence_of
from hubedit_rome.held import Held
from hubedit_rome.site import Site


@dataclass(frozen=True)
class Value:
    """δ = v* − v, float32 [width], and how its optimisation ended.

    `loss` is the last one computed, `probability` the target's under δ (the geometric mean of its
    tokens, averaged over the contexts), `steps` the number of steps taken.
    """

    delta: torch.Tensor
    steps: int
    loss: float
    probability: float


@torch.enable_grad()
def optimise(
    model: hubedit.EditableModel,
    site: Site,
    row: hubedit.FactEdit,
    contexts: Sequence[Context],
    held: Held | None,
    config: RomeConfig,
    bar: Any,
) -> Value:
    """Find δ by Adam so that the target follows every context (Meng et al. 2022, equation 4).

    The loss is the mean over contexts of the mean negative log-likelihood of the target's tokens,
    plus `kl_factor` times KL(edited ‖ unedited) of the next token on “{subject} is a”, plus
    `weight_decay`·‖δ‖/‖reference‖² (as the published code has it, not squared above), plus
    `preserve_factor` times what `held` measures. δ is added to the matrix's output at the subject's
    last token of every text, and is the only thing that receives a gradient.

    Raises:
        MethodError: the loss is not finite.
    """
    count, device = len(contexts), model.device
    readings = [context.reading for context in contexts]
    readings.append(essence_of(model, row.subject, config.kl_position == "subject"))
    batch = Batch.of(model, readings + list(held.readings if held else ()))
    asked = Asked.of(contexts, device)
    essence = torch.tensor([[count], [readings[-1].places[0]]], device=device)
    kept = torch.zeros(2, 0, dtype=torch.int64, device=device)
    if held is not None:
        kept = held.places(count + 1).to(device)

    with torch.no_grad(), ExitStack() as stack:
        matrix = stack.enter_context(model.trace(site.mlp_out))
        block = stack.enter_context(model.trace(site.block))
        places = torch.cat([torch.stack([asked.text, asked.at]), essence, kept], 1)
        logits, shortened = read_whole(model, batch, site.mlp_out, *places)
        before = logits[len(asked.text) :].log_softmax(-1)
        hidden = (block if config.clamp == "residual" else matrix).output
        reference = _reference(batch.at_subjects(hidden)[:count], config)
        width = matrix.output.shape[-1]
    if held is not None:
        steady = held.about_something_else(before[1:])
        kept, before = kept[:, steady], torch.cat([before[:1], before[1:][steady]])

    ends = len(asked.text), len(asked.text) + 1
    text, at = torch.cat([torch.stack([asked.text, asked.at]), essence, kept], 1)
    batch = shortened()
    delta = torch.zeros(width, device=device, requires_grad=True)
    shifted = batch.adding(lambda: delta)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    for step in range(config.steps):
        with model.trace(site.mlp_out, replace_output=shifted):
            logits = batch.logits(model, text, at)
        nll = asked.losses(logits[: ends[0]], count).mean()
        kl = divergence(logits[ends[0] : ends[1]].log_softmax(-1), before[:1])
        loss = nll + config.kl_factor * kl + config.weight_decay * delta.norm() / reference**2
        if held is not None:
            after = logits[ends[1] :].log_softmax(-1)
            moved = divergence(before[1:], after) / max(len(held.readings), 1)
            loss = loss + config.preserve_factor * moved
        figure = float(loss.detach())
        if not torch.isfinite(loss):
            raise hubedit.MethodError(
                f"the loss for “{row.text}” became {figure}; "
                "set learning_rate or clamp_factor lower"
            )
        bar.advance(1, loss=figure)
        if figure < config.stop_loss or step == config.steps - 1:
            break
        (delta.grad,) = torch.autograd.grad(loss, delta)
        adam.step()
        with torch.no_grad():
            longest = config.clamp_factor * reference
            if delta.norm() > longest:
                delta.mul_(longest / delta.norm())
    return Value(delta.detach(), step, figure, float((-nll.detach()).exp()))


def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(one ‖ other) of log-probabilities [places, vocabulary], summed over the places."""
    return (one.exp() * (one - other)).sum()


def _reference(hidden: torch.Tensor, config: RomeConfig) -> torch.Tensor:
    """The length that δ is compared with, at the subject's last token.

    That of the bare prompt as published, or the median over all contexts of the residual stream:
    the median is not moved by a single degenerate position.

    Args:
        hidden: [contexts, width].
    """
    lengths: torch.Tensor = hidden.float().norm(dim=-1)
    return lengths[0] if config.clamp == "mlp" else lengths.median()
