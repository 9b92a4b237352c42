"""What a model says to the cases of a request: losses, tokens it would choose, texts it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hubedit.asking import Asking
from hubedit.forgetting import membership, memorised
from hubedit.forgetting.cases import Case
from hubedit.forgetting.probability import loss
from hubedit.forgetting.reciting import NOTHING, Recital, recite
from hubedit.requests import of_row

if TYPE_CHECKING:
    import torch

BEYOND = 16
"""Tokens that are written beyond the length of the answer; TOFU writes up to 200 in all."""
KEPT = ("forget", "retain", "normal")
"""Parts whose cases a model answers freely; held-out ones are only read."""
STEPS = 5
"""Parts of the work on one model."""
Tick = Callable[[], None]


@dataclass(frozen=True)
class Heard:
    """What a model says to one case.

    `loss` is the mean over the answer's tokens and its end. `strength` and
    `exact` are extraction strength and exact memorisation over the answer's tokens without the end.
    `min_k` and `min_k_pp` are scores over the same tokens; `gradient` is the mean norm. `correct`
    and `wrong` are losses, ends among them; `written` is the greedy answer; `recital` is what is
    recited of it.
    """

    case: Case
    loss: float
    strength: float
    exact: float
    min_k: float
    min_k_pp: float
    correct: float | None = None
    wrong: tuple[float, ...] = ()
    written: str | None = None
    gradient: float | None = None
    recital: Recital = NOTHING


def hear(
    model: Asking,
    asked: Sequence[Case],
    *,
    gradients: bool = False,
    write: bool = True,
    recited: bool = False,
    tick: Tick = lambda: None,
) -> list[Heard]:
    """Put the cases to a model; what is heard comes in the same order.

    Args:
        model: a causal one; others have no answers that follow a prompt.
        asked: the cases.
        gradients: also take the gradient norms of forgotten and held-out answers.
        write: also write answers freely.
        recited: also recite texts and answers as Jang, MUSE and WMDP have it.
        tick: called after each part of the work, `STEPS` times.
    """
    end = ending(model)
    found = _read(model, asked, end)
    tick()
    options = [(case.prompt, text + end) for case in asked for text in _options(case)]
    scores = iter([loss(score.logprobs) for score in model.target_logprobs(options)])
    told = [[next(scores) for _ in _options(case)] for case in asked]
    tick()
    texts = _written(model, asked) if write else [None] * len(asked)
    tick()
    norms = _gradients(model, asked, end) if gradients else [None] * len(asked)
    tick()
    heard = [
        Heard(
            case,
            *read,
            correct=options[0] if options else None,
            wrong=tuple(options[1:]),
            written=text,
            gradient=norm,
        )
        for case, read, options, text, norm in zip(asked, found, told, texts, norms, strict=True)
    ]
    if recited:
        pairs = zip(heard, recite(model, asked), strict=True)
        heard = [replace(one, recital=recital) for one, recital in pairs]
    tick()
    return heard


def _options(case: Case) -> list[str]:
    """The right answer in other words and the wrong ones, where the case has wrong ones."""
    return [case.correct, *case.wrong] if case.wrong else []


def ending(model: Asking) -> str:
    """What ends an answer, as text; empty where the tokenizer has no end of its own."""
    end = model.tokenizer.eos_token
    return end if isinstance(end, str) else ""


def _read(
    model: Asking, asked: Sequence[Case], end: str
) -> list[tuple[float, float, float, float, float]]:
    """Loss, extraction strength, exact memorisation, Min-K and Min-K++ of each answer."""
    import torch

    scored = []
    for case in asked:
        with of_row(case.row):
            scored.append(model.scored(case.prompt, case.answer + end))
    found: dict[int, tuple[float, float, float, float, float]] = {}
    for index, logprobs in model.logprobs([reading for reading, _ in scored]):
        target = scored[index][1]
        picked = logprobs.gather(1, torch.tensor(target)[:, None])[:, 0].tolist()
        own = len(target) - 1 if end and len(target) > 1 else len(target)
        hits = memorised.matches(target[:own], logprobs.argmax(-1).tolist()[:own])
        means, variances = _moments(logprobs[:own])
        found[index] = (
            loss(picked),
            memorised.extraction_strength(hits),
            memorised.exact_memorisation(hits),
            membership.min_k(picked[:own]),
            membership.min_k_plus_plus(picked[:own], means, variances),
        )
    return [found[index] for index in range(len(asked))]


def _moments(logprobs: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and variance of log p under p itself, at each place."""
    wide = logprobs.double()
    chances = wide.exp()
    finite = wide.clamp_min(-1e4)  # where p is 0, p log p is 0
    means = (chances * finite).sum(-1)
    variances = (chances * (finite - means[:, None]) ** 2).sum(-1)
    return means.tolist(), variances.tolist()


def _written(model: Asking, asked: Sequence[Case]) -> list[str | None]:
    texts: list[str | None] = [None] * len(asked)
    members = [index for index, case in enumerate(asked) if case.part in KEPT]
    lengths = {
        index: len(model.scored(asked[index].prompt, asked[index].answer)[1]) for index in members
    }
    for length in sorted(set(lengths.values())):
        some = [index for index in members if lengths[index] == length]
        said = model.generate([asked[index].prompt for index in some], length + BEYOND)
        for index, text in zip(some, said, strict=True):
            texts[index] = text.strip()
    return texts


def _gradients(model: Asking, asked: Sequence[Case], end: str) -> list[float | None]:
    """The mean norm of each forgotten or held-out answer's gradient, one answer at a time."""
    import torch

    weights = [p for p in model.model.parameters() if p.is_floating_point()]
    before = [p.requires_grad for p in weights]
    norms: list[float | None] = []
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for case in asked:
            if case.part not in ("forget", "holdout"):
                norms.append(None)
                continue
            reading, target = model.scored(case.prompt, case.answer + end)
            ids = torch.tensor([reading.ids], device=model.device)
            logits = model.model(input_ids=ids, use_cache=False).logits[0, list(reading.places)]
            mean = torch.nn.functional.cross_entropy(
                logits.float(), torch.tensor(target, device=model.device)
            )
            grads = torch.autograd.grad(mean, weights, allow_unused=True)
            norms.append(
                membership.gradient_norm([float(g.norm()) for g in grads if g is not None])
            )
    finally:
        for weight, needed in zip(weights, before, strict=True):
            weight.requires_grad_(needed)
    return norms


def of_part(heard: Sequence[Heard], part: str) -> list[Heard]:
    """What was heard of one part."""
    return [one for one in heard if one.case.part == part]


def mean(values: Sequence[float]) -> float:
    """The mean of numbers, of which there must be some."""
    return float(np.mean(np.asarray(values, dtype=np.float64)))
