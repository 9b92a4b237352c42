"""ROME from rows to rank-one updates, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

import hubedit
from hubedit_rome.config import RomeConfig
from hubedit_rome.contexts import Context, place_all, with_something_before
from hubedit_rome.guard import Canary, stop, trial
from hubedit_rome.held import texts_on_subject
from hubedit_rome.prefixes import sample_prefixes
from hubedit_rome.site import Site, at_rest, doubles, forward
from hubedit_rome.solve import Directions, denominator_of, rank_one
from hubedit_rome.statistics import gather_texts, second_moment
from hubedit_rome.value import optimise, target_probability


def apply(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    config: RomeConfig,
    run: hubedit.RunContext,
) -> None:
    """Make every row, one after the other; see `Rome.apply`."""
    site = Site.find(model, config.layer)
    with at_rest(model.model):
        prefixes = sample_prefixes(model, config.prefixes, config.prefix_top_k, run.generator)
        run.record("prefixes", prefixes)
        texts = gather_texts(model, config, run)
        moment = second_moment(model, site, texts, config, run) if config.covariance else None
        run.record(
            "statistics",
            {
                "module": site.mlp_out,
                "source": texts.source,
                "digest": texts.digest,
                "texts": len(texts.counted),
                "held_out": len(texts.held_out),
                "tokens": moment.tokens if moment else None,
                "artifact": moment.artifact if moment else None,
            },
        )
        directions = Directions(moment.matrix if moment else None, config.ridge)
        canary = Canary(model, texts.held_out, rows)
        figures: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start=1):
            figures.append(
                _rewrite(model, site, row, number, prefixes, directions, canary, config, run)
            )
            run.record("rows", figures)


def _rewrite(
    model: hubedit.EditableModel,
    site: Site,
    row: hubedit.FactEdit,
    number: int,
    prefixes: Sequence[str],
    directions: Directions,
    canary: Canary,
    config: RomeConfig,
    run: hubedit.RunContext,
) -> dict[str, Any]:
    """Make one row on the model as it is now; returns its figures for the manifest."""
    name = f"row {number} (“{row.text}”)"
    everywhere = place_all(model, row, prefixes)
    contexts = everywhere
    if config.keys == "averaged" and model.layout.first_token_sink:
        contexts = with_something_before(everywhere)
        if len(contexts) < len(everywhere):
            run.log(
                f"{name}: the subject is the first token, where keys say nothing of it; "
                "the edit is made for the prompt with words before it"
            )

    keys = read_keys(model, site, contexts)
    average = keys.mean(0)
    key = average if config.keys == "averaged" else keys[0]
    u = directions.of(average)
    _, cosine = denominator_of(u, key)
    if not cosine >= config.min_cosine:
        stop(
            run,
            f"{name}: the key is nearly orthogonal to the update's direction (cosine {cosine:.2g}, "
            f"limit {config.min_cosine:g}), so the update would be huge; write words before the "
            "subject, or use keys=averaged and a larger ridge",
        )

    held = None
    if config.preserve == "attributes":
        answers = answers_of(model, row, everywhere[0])
        held = texts_on_subject(model, row, answers, config, run)
    with run.progress(f"v* {number}", total=config.steps) as bar:
        value = optimise(model, site, row, contexts, held, config, bar)

    update = rank_one(u, key, value.delta)
    weight = model.weight(site.weight)
    left, right = (update.u, update.r) if site.conv1d else (update.r, update.u)
    left, right = left.float()[:, None], right.float()[None, :]
    if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise hubedit.MethodError(f"{name}: the update is not finite; use keys=averaged")
    ratio = float(left.norm()) * float(right.norm()) / float(weight.detach().float().norm())
    if ratio > config.max_norm_ratio:
        stop(
            run,
            f"{name}: the update is {ratio:.2g} times as large as the weight (limit "
            f"{config.max_norm_ratio:g}); use a smaller clamp_factor or another layer",
        )
    with trial(weight, (left @ right).to(weight.device)):
        probability = target_probability(model, everywhere[0])
        growth = canary.ratio(model)
    if growth is not None and growth > config.max_canary_ratio:
        stop(
            run,
            f"{name}: the perplexity on {len(canary.texts)} held-out texts would grow "
            f"{growth:.3g} times (limit {config.max_canary_ratio:g}); use a smaller "
            "clamp_factor or another layer",
        )
    reached = probability >= config.min_probability
    if not reached:
        run.log(
            f"{name}: the target's probability is only {probability:.2g} after the edit; "
            "try more steps, a larger clamp_factor or another layer"
        )
    model.update(site.weight, hubedit.LowRank(left.cpu().numpy(), right.cpu().numpy()))
    return {
        "layer": site.layer,
        "steps": value.steps,
        "loss": _finite(value.loss),
        "optimised_probability": _finite(value.probability),
        "probability": _finite(probability),
        "reached": reached,
        "denominator": _finite(update.denominator),
        "cosine": _finite(cosine),
        "norm_ratio": _finite(ratio),
        "canary_ratio": None if growth is None else _finite(growth),
        "contexts": len(contexts),
    }


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


@torch.no_grad()
def read_keys(
    model: hubedit.EditableModel, site: Site, contexts: Sequence[Context]
) -> torch.Tensor:
    """The matrix's input at the subject's last token of each context, float64 [contexts, d]."""
    inputs = model.batch([context.text for context in contexts])
    with model.trace(site.mlp_out, stop=True) as seen:
        forward(model, inputs)
    at = torch.tensor([context.subject for context in contexts], device=seen.input.device)
    keys: torch.Tensor = seen.input[torch.arange(len(contexts), device=at.device), at]
    return doubles(keys)


@torch.no_grad()
def answers_of(model: hubedit.EditableModel, row: hubedit.FactEdit, bare: Context) -> list[int]:
    """First tokens of what the fact's answer was and shall be.

    The old answer is the row's `true_target` if it has one, and what the model says now.
    """
    inputs = model.batch([bare.text])
    ids, logits = inputs["input_ids"], forward(model, inputs)
    answers = {int(logits[0, bare.first - 1].argmax()), int(ids[0, bare.first])}
    if row.true_target:
        before = row.model_copy(update={"target": row.true_target})
        prompt = row.text.rstrip()
        text = prompt + before.continuation
        first = model.subject_token(text, (0, len(prompt))) + 1
        answers.add(int(model.batch([text])["input_ids"][0, first]))
    return sorted(answers)
