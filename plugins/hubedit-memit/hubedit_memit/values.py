"""The states z*: what the last edited block must put out so that the model says each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hubedit_rome.contexts import Context

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
    """All texts of some wishes, tokenised together: the contexts of each, then “{subject} is a”.

    `owner` [texts] is the wish of each text, `lookup` [texts] the position of δ in it. A place is a
    position whose next token is looked at: `text` and `at` say where, `token` is the target's and
    `share` its weight in the loss; `essence` marks the places whose divergence counts, whose
    `token` and `share` are 0.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    owner: torch.Tensor
    lookup: torch.Tensor
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
        longest = int(self.mask[texts].sum(1).max())
        return _Batch(
            self.ids[texts, :longest],
            self.mask[texts, :longest],
            self.owner[texts],
            self.lookup[texts],
            renumbered[self.text[places]],
            self.at[places],
            self.token[places],
            self.share[places],
            self.essence[places],
        )


@torch.enable_grad()
def optimise(
    model: hubedit.EditableModel,
    block: str,
    wishes: Sequence[Wish],
    config: ManyFactsConfig,
    bar: Any,
) -> Values:
    """Find every wish's δ by Adam so that its targets follow each of their contexts.

    The loss is the sum over rows of the mean over contexts of the mean negative log-likelihood of
    the target's tokens, plus `kl_factor`·KL(edited ‖ unedited) of the next token at the subject's
    last token of “{subject} is a”, plus `weight_decay`·‖δ‖/‖reference‖² (Meng et al. 2023, equation
    16, with the terms of the published code). δ is added to the block's output at the subject's
    last token. Wishes do not touch each other: their losses are summed, and one that is below
    `stop_loss` is taken out of the batch. Logits are computed only where they are looked at.

    Args:
        block: name of the module whose output δ is added to.

    Raises:
        MethodError: a loss is not finite.
    """
    whole = _tokenised(model, wishes)
    count, device = len(wishes), model.device
    with torch.no_grad(), model.trace(block) as seen:
        logits = _logits(model, whole)
        unedited = torch.zeros(count, logits.shape[-1], device=device)
        at = whole.essence
        unedited[whole.owner[whole.text[at]]] = logits[at].log_softmax(-1)
        hidden = seen.output[torch.arange(len(whole.lookup), device=device), whole.lookup]
        reference = _references(hidden.float().norm(dim=-1), whole, count)

    delta = torch.zeros(count, hidden.shape[-1], device=device, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    running = torch.ones(count, dtype=torch.bool, device=device)
    losses, likelihoods, steps = [0.0] * count, [0.0] * count, [0] * count
    batch = whole
    for step in range(config.steps):
        with model.trace(block, replace_output=_shifted(delta, batch)):
            likely = _logits(model, batch).log_softmax(-1)
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


def _shifted(delta: torch.Tensor, batch: _Batch) -> Any:
    """What adds each row's δ at the subject's last token of its texts."""
    place = torch.zeros(batch.ids.shape, device=delta.device)
    place[torch.arange(len(place), device=delta.device), batch.lookup] = 1

    def shifted(output: torch.Tensor) -> torch.Tensor:
        return output + (place[..., None] * delta[batch.owner][:, None]).to(output.dtype)

    return shifted


def _logits(model: hubedit.EditableModel, batch: _Batch) -> torch.Tensor:
    """Logits [places, vocabulary] in float32: the head is given the places and nothing else."""

    def places(hidden: torch.Tensor) -> torch.Tensor:
        return hidden[batch.text, batch.at][None]

    with model.trace(model.layout.head, replace_input=places):
        logits: torch.Tensor = model.model(
            input_ids=batch.ids, attention_mask=batch.mask, use_cache=False
        ).logits
    return logits[0].float()


def _references(lengths: torch.Tensor, batch: _Batch, count: int) -> torch.Tensor:
    """The length that each δ is compared with: the median of ‖h‖ over its contexts [wishes].

    The median is not moved by a single degenerate position; published is that of the bare prompt.
    """
    inside = torch.ones(len(batch.owner), dtype=torch.bool, device=lengths.device)
    inside[batch.text[batch.essence]] = False
    return torch.stack(
        [lengths[inside & (batch.owner == number)].median() for number in range(count)]
    )


def _tokenised(model: hubedit.EditableModel, wishes: Sequence[Wish]) -> _Batch:
    """Tokenise all contexts and essences, and list the places."""
    texts: list[str] = []
    owner: list[int] = []
    lookup: list[int] = []
    places: list[tuple[int, int, float, bool]] = []
    for number, wish in enumerate(wishes):
        for own in wish.contexts:
            for context in own:
                share = 1 / ((context.last - context.first + 1) * len(own))
                for at in range(context.first - 1, context.last):
                    places.append((len(texts), at, share, False))
                texts.append(context.text)
                lookup.append(context.subject)
        essence = f"{wish.subject} is a"
        subject = model.subject_token(essence, (0, len(wish.subject)))
        places.append((len(texts), subject, 0.0, True))
        texts.append(essence)
        lookup.append(subject)
        owner += [number] * (len(texts) - len(owner))
    device = model.device
    inputs = {name: tensor.to(device) for name, tensor in model.batch(texts).items()}
    ids = inputs["input_ids"]
    text = torch.tensor([place[0] for place in places], device=device)
    position = torch.tensor([place[1] for place in places], device=device)
    essences = torch.tensor([place[3] for place in places], device=device)
    following = ids[text, (position + 1).clamp_max(ids.shape[1] - 1)]
    return _Batch(
        ids=ids,
        mask=inputs["attention_mask"],
        owner=torch.tensor(owner, device=device),
        lookup=torch.tensor(lookup, device=device),
        text=text,
        at=position,
        token=following.masked_fill(essences, 0),
        share=torch.tensor([place[2] for place in places], device=device),
        essence=essences,
    )
