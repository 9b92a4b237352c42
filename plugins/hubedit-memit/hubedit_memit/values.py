"""The states z*: what the last edited block must put out so that the model says each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from hubedit_rome.above import read_whole
from hubedit_rome.batches import Batch
from hubedit_rome.contexts import Context, essence_of

import hubedit
from hubedit_memit.config import ManyFactsConfig


@dataclass(frozen=True)
class Wish:
    """What one δ is to bring about: the targets of rows about one subject, each in its contexts."""

    subject: str
    contexts: Sequence[Sequence[Context]]


@dataclass(frozen=True)
class Values:
    """δ = z* − h of some wishes, float32 [wishes, width], and how their optimisations ended.

    `losses` are the last computed, `probabilities` the targets' under δ (geometric mean over tokens
    and contexts), `steps` the numbers of steps taken.
    """

    deltas: torch.Tensor
    losses: list[float]
    probabilities: list[float]
    steps: list[int]


@dataclass(frozen=True)
class _Batch:
    """All readings of some wishes together: the contexts of each, then what asks what it is.

    `owner` [readings] is the wish of each reading. A place is a position whose logits are looked
    at: `text` and `at` say where, `token` is the target's and `share` its weight in the loss;
    `essence` marks the places whose divergence counts, whose `token` and `share` are 0.
    """

    read: Batch
    owner: torch.Tensor
    text: torch.Tensor
    at: torch.Tensor
    token: torch.Tensor
    share: torch.Tensor
    essence: torch.Tensor

    def of(self, wanted: torch.Tensor) -> _Batch:
        """The batch of some wishes alone, which keep their numbers.

        Args:
            wanted: bool [wishes].
        """
        texts = wanted[self.owner]
        places = texts[self.text]
        renumbered = texts.cumsum(0) - 1
        return _Batch(
            self.read.only(texts),
            self.owner[texts],
            renumbered[self.text[places]],
            self.at[places],
            self.token[places],
            self.share[places],
            self.essence[places],
        )

    def logits(self, model: hubedit.EditableModel) -> torch.Tensor:
        """What the model says at the places, float32 [places, vocabulary]."""
        return self.read.logits(model, self.text, self.at)


@torch.enable_grad()
def optimise(
    model: hubedit.EditableModel,
    place: str,
    wishes: Sequence[Wish],
    config: ManyFactsConfig,
    bar: Any,
) -> Values:
    """Find every wish's δ by Adam so that its targets follow each of their contexts.

    The loss is the sum over rows of the mean over contexts of the mean negative log-likelihood of
    the target's tokens, plus `kl_factor`·KL(edited ‖ unedited) of the next token at the subject's
    last token of “{subject} is a”, plus `weight_decay`·‖δ‖/‖reference‖² (Meng et al. 2023, equation
    16, with the terms of the published code). δ is added to the output of `place` at the subject's
    last token. Wishes do not touch each other: their losses are summed, and one that is below
    `stop_loss` is taken out of the batch. Logits are computed only where they are looked at.

    Args:
        place: name of the module whose output δ is added to: a block, or a matrix.

    Raises:
        MethodError: a loss is not finite.
    """
    whole = _tokenised(model, wishes)
    count, device = len(wishes), model.device
    with torch.no_grad(), model.trace(place) as seen:
        logits, shortened = read_whole(model, whole.read, place, whole.text, whole.at)
        unedited = torch.zeros(count, logits.shape[-1], device=device)
        at = whole.essence
        unedited[whole.owner[whole.text[at]]] = logits[at].log_softmax(-1)
        hidden = whole.read.at_subjects(seen.output)
        reference = _references(hidden.float().norm(dim=-1), whole, count, config.reference)

    whole = replace(whole, read=shortened())
    delta = torch.zeros(count, hidden.shape[-1], device=device, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    running = torch.ones(count, dtype=torch.bool, device=device)
    losses, likelihoods, steps = [0.0] * count, [0.0] * count, [0] * count
    batch = whole
    for step in range(config.steps):
        shifted = batch.read.adding(partial(delta.index_select, 0, batch.owner))
        with model.trace(place, replace_output=shifted):
            likely = batch.logits(model).log_softmax(-1)
        chosen = likely.gather(1, batch.token[:, None])[:, 0] * batch.share
        owner = batch.owner[batch.text]
        nll = torch.zeros(count, device=device).index_add(0, owner, -chosen)
        at, edited = batch.essence, likely[batch.essence]
        kl = (edited.exp() * (edited - unedited[owner[at]])).sum(-1)
        loss = nll.index_add(0, owner[at], config.kl_factor * kl)
        loss = loss + config.weight_decay * delta.norm(dim=-1) / reference**2
        figures = loss.detach().tolist()
        for number in torch.nonzero(running)[:, 0].tolist():
            if not torch.isfinite(loss[number]):
                raise hubedit.MethodError(
                    f"the loss for {wishes[number].subject!r} became {figures[number]}; set "
                    "learning_rate or clamp_factor lower"
                )
            losses[number], steps[number] = figures[number], step
            likelihoods[number] = float(nll[number].detach()) / len(wishes[number].contexts)
        bar.advance(1, loss=sum(losses) / count, rows=float(running.sum()))
        still = running & (loss.detach() >= config.stop_loss)
        if step == config.steps - 1 or not still.any():
            break
        (gradient,) = torch.autograd.grad(loss[still].sum(), delta)
        before = delta.detach().clone()
        delta.grad = gradient
        adam.step()
        with torch.no_grad():
            longest = config.clamp_factor * reference / delta.norm(dim=-1).clamp_min(1e-30)
            delta.mul_(longest.clamp_max(1)[:, None])
            delta[~still] = before[~still]
        if not torch.equal(still, running):
            running, batch = still, whole.of(still)
    probabilities = torch.tensor(likelihoods).neg().exp().tolist()
    return Values(delta.detach(), losses, probabilities, steps)


def _references(
    lengths: torch.Tensor, batch: _Batch, count: int, which: Literal["median", "bare"]
) -> torch.Tensor:
    """The length that each δ is compared with [wishes].

    It is the median of ‖h‖ over the contexts, which a single degenerate position does not move, or
    as published ‖h‖ of the first context, which is the bare prompt.
    """
    if which == "bare":
        return torch.stack([lengths[batch.owner == number][0] for number in range(count)])
    inside = torch.ones(len(batch.owner), dtype=torch.bool, device=lengths.device)
    inside[batch.text[batch.essence]] = False
    return torch.stack(
        [lengths[inside & (batch.owner == number)].median() for number in range(count)]
    )


def _tokenised(model: hubedit.EditableModel, wishes: Sequence[Wish]) -> _Batch:
    """Read all contexts and essences, and list the places."""
    readings: list[hubedit.Reading] = []
    owner: list[int] = []
    places: list[tuple[int, int, int, float, bool]] = []
    for number, wish in enumerate(wishes):
        for own in wish.contexts:
            for context in own:
                share = 1 / (len(context.target) * len(own))
                for at, token in zip(context.reading.places, context.target, strict=True):
                    places.append((len(readings), at, token, share, False))
                readings.append(context.reading)
        essence = essence_of(model, wish.subject)
        places.append((len(readings), essence.places[0], 0, 0.0, True))
        readings.append(essence)
        owner += [number] * (len(readings) - len(owner))
    columns = [torch.tensor(column, device=model.device) for column in zip(*places, strict=True)]
    owners = torch.tensor(owner, device=model.device)
    return _Batch(Batch.of(model, readings), owners, *columns)
