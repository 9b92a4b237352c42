"""The value v*: what the matrix must put out at the subject so that the model says the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

import hubedit
from hubedit_rome.config import RomeConfig
from hubedit_rome.contexts import Context
from hubedit_rome.held import Held
from hubedit_rome.site import Site, forward


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


@dataclass(frozen=True)
class _Batch:
    """All texts of one optimisation, tokenised together: contexts, the essence, what is held.

    `lookup` [texts] is the position of δ in each; `rows`, `at` and `tokens` say where which target
    token is predicted and `share` with which weight.
    """

    inputs: Mapping[str, torch.Tensor]
    lookup: torch.Tensor
    rows: torch.Tensor
    at: torch.Tensor
    tokens: torch.Tensor
    share: torch.Tensor
    essence: tuple[int, int]


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
    batch = _tokenised(model, row, contexts, held, config)
    place = torch.zeros(batch.inputs["input_ids"].shape, device=model.device)
    place[torch.arange(len(place)), batch.lookup] = 1
    delta: torch.Tensor | None = None

    def shifted(output: torch.Tensor) -> torch.Tensor:
        return output if delta is None else output + (place[..., None] * delta).to(output.dtype)

    with torch.no_grad(), ExitStack() as stack:
        matrix = stack.enter_context(model.trace(site.mlp_out))
        block = stack.enter_context(model.trace(site.block))
        logits = forward(model, batch.inputs)
        unedited = _log_probabilities(logits, *batch.essence)
        kept = None if held is None else held.keep(logits, len(contexts) + 1)
        reference = _reference(
            (block if config.clamp == "residual" else matrix).output,
            batch.lookup,
            len(contexts),
            config,
        )

    delta = torch.zeros(matrix.output.shape[-1], device=model.device, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    for step in range(config.steps):
        with model.trace(site.mlp_out, replace_output=shifted):
            logits = forward(model, batch.inputs)
        likelihood = _log_probabilities(logits, batch.rows, batch.at)
        chosen = likelihood.gather(1, batch.tokens[:, None])[:, 0]
        nll = -(chosen * batch.share).sum()
        essence = _log_probabilities(logits, *batch.essence)
        kl = (essence.exp() * (essence - unedited)).sum()
        loss = nll + config.kl_factor * kl + config.weight_decay * delta.norm() / reference**2
        if kept is not None:
            loss = loss + config.preserve_factor * kept.divergence(logits)
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


def _tokenised(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    contexts: Sequence[Context],
    held: Held | None,
    config: RomeConfig,
) -> _Batch:
    """Tokenise the contexts, then “{subject} is a”, then the texts that are held."""
    essence = f"{row.subject} is a"
    subject = model.subject_token(essence, (0, len(row.subject)))
    last = model.subject_token(essence, (0, len(essence)))
    texts = [context.text for context in contexts] + [essence]
    lookup = [context.subject for context in contexts] + [subject]
    if held is not None:
        texts += held.texts
        lookup += held.subjects
    inputs = {name: tensor.to(model.device) for name, tensor in model.batch(texts).items()}
    ids = inputs["input_ids"]
    rows: list[int] = []
    at: list[int] = []
    share: list[float] = []
    for number, context in enumerate(contexts):
        length = context.last - context.first + 1
        rows += [number] * length
        at += range(context.first - 1, context.last)
        share += [1 / (length * len(contexts))] * length
    where = torch.tensor(rows, device=model.device), torch.tensor(at, device=model.device)
    return _Batch(
        inputs={"input_ids": ids, "attention_mask": inputs["attention_mask"]},
        lookup=torch.tensor(lookup, device=model.device),
        rows=where[0],
        at=where[1],
        tokens=ids[where[0], where[1] + 1],
        share=torch.tensor(share, device=model.device),
        essence=(len(contexts), subject if config.kl_position == "subject" else last),
    )


def _log_probabilities(logits: torch.Tensor, rows: Any, at: Any) -> torch.Tensor:
    """Log-probabilities of the next token at some positions, float32 [..., vocabulary]."""
    chosen: torch.Tensor = logits[rows, at]
    return chosen.float().log_softmax(-1)


def _reference(
    hidden: torch.Tensor, lookup: torch.Tensor, contexts: int, config: RomeConfig
) -> torch.Tensor:
    """The length that δ is compared with, at the subject's last token.

    That of the bare prompt as published, or the median over all contexts of the residual stream:
    the median is not moved by a single degenerate position.
    """
    rows = torch.arange(len(lookup), device=hidden.device)
    lengths: torch.Tensor = hidden[rows, lookup].float().norm(dim=-1)[:contexts]
    return lengths[0] if config.clamp == "mlp" else lengths.median()


@torch.no_grad()
def target_probability(model: hubedit.EditableModel, context: Context) -> float:
    """Probability of the target in one context: the geometric mean of its tokens'."""
    inputs = model.batch([context.text])
    ids, logits = inputs["input_ids"].to(model.device), forward(model, inputs)
    at = torch.arange(context.first - 1, context.last, device=ids.device)
    likelihood = _log_probabilities(logits, 0, at).gather(1, ids[0, at + 1][:, None])
    return float(likelihood.mean().exp())
