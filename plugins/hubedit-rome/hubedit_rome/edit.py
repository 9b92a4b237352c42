"""ROME from rows to rank-one updates, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import hubedit
from hubedit_rome.batches import Batch, target_probabilities
from hubedit_rome.config import RomeConfig
from hubedit_rome.contexts import Context, place, place_all, with_something_before
from hubedit_rome.guard import Canary, stop, trial
from hubedit_rome.held import texts_on_subject
from hubedit_rome.prefixes import sample_prefixes
from hubedit_rome.site import Site, at_rest, doubles
from hubedit_rome.solve import Directions, denominator_of, rank_one
from hubedit_rome.statistics import gather_texts, moments_of
from hubedit_rome.value import optimise


def apply(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    config: RomeConfig,
    run: hubedit.RunContext,
) -> None:
    """Make every row, one after the other; see `Rome.apply`."""
    site = Site.find(model, config.layer)
    with at_rest(model.model):
        prefixes = sample_prefixes(model, config.prefixes, config.prefix_top_k, run, rows)
        run.record("prefixes", prefixes)
        texts = gather_texts(model, site, config, run, keys=config.covariance)
        moments = moments_of(model, [site], texts, config, run) if config.covariance else []
        moment = moments[0] if moments else None
        run.record(
            "statistics",
            {
                "module": site.mlp_out,
                "source": texts.source,
                "digest": texts.digest,
                "texts": len(texts.counted),
                "held_out": len(texts.held_out),
                "tokens": moment.tokens if moment else None,
                "error": moment.error if moment else None,
                "artifact": moment.artifact if moment else None,
            },
        )
        directions = Directions(moment.matrix if moment else None, config.ridge)
        canary = Canary(model, texts.held_out, rows)
        editing = _Editing(model, site, config, run, prefixes, directions, canary)
        figures: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start=1):
            figures.append(editing.rewrite(row, number))
            run.record("rows", figures)


@dataclass(frozen=True)
class _Editing:
    """What all rows of a run share."""

    model: hubedit.EditableModel
    site: Site
    config: RomeConfig
    run: hubedit.RunContext
    prefixes: Sequence[str]
    directions: Directions
    canary: Canary

    def rewrite(self, row: hubedit.FactEdit, number: int) -> dict[str, Any]:
        """Make one row on the model as it is now; returns its figures for the manifest."""
        name = f"row {number} (“{row.text}”)"
        everywhere = place_all(self.model, row, self.prefixes)
        contexts = self.usable(everywhere, name)
        keys = read_keys(self.model, self.site, contexts)
        average = self.average(keys, contexts, everywhere)
        key = average if self.config.keys == "averaged" else keys[0]
        u = self.directions.of(average)
        self.guard_key(u, key, name)

        held = None
        if self.config.preserve == "attributes":
            answers = answers_of(self.model, row, everywhere[0])
            held = texts_on_subject(self.model, row, answers, self.config, self.run)
        with self.run.progress(f"v* {number}", total=self.config.steps) as bar:
            value = optimise(self.model, self.site, row, contexts, held, self.config, bar)

        update = rank_one(u, key, value.delta)
        left, right = (update.u, update.r) if self.site.conv1d else (update.r, update.u)
        left, right = left.float()[:, None], right.float()[None, :]
        tried = self.guard_update(left, right, everywhere[0], name)
        factors = hubedit.LowRank(left.cpu().numpy(), right.cpu().numpy())
        self.model.update(self.site.weight, factors)
        figures = {
            "loss": value.loss,
            "optimised_probability": value.probability,
            "denominator": update.denominator,
            "cosine": update.cosine,
            **tried,
        }
        return {
            "layer": self.site.layer,
            "contexts": len(contexts),
            "steps": value.steps,
            "reached": (tried["probability"] or 0.0) >= self.config.min_probability,
            **{name: _finite(figure) for name, figure in figures.items()},
        }

    def average(
        self, keys: torch.Tensor, contexts: Sequence[Context], everywhere: Sequence[Context]
    ) -> torch.Tensor:
        """The mean key, in which the bare prompt has the weight that the settings give it."""
        weight = self.config.bare_weight
        if weight is None or len(keys) < 2 or contexts[0] is not everywhere[0]:
            return keys.mean(0)
        return weight * keys[0] + (1 - weight) * keys[1:].mean(0)

    def usable(self, everywhere: Sequence[Context], name: str) -> Sequence[Context]:
        """The contexts whose keys tell something of the subject."""
        if self.config.keys == "original" or not self.model.layout.reader.first_token_sink:
            return everywhere
        contexts = with_something_before(everywhere)
        if len(contexts) < len(everywhere):
            self.run.log(
                f"{name}: the subject is the first token, where keys say nothing of it; "
                "the edit is made for the prompt with words before it"
            )
        return contexts

    def guard_key(self, u: torch.Tensor, key: torch.Tensor, name: str) -> None:
        """Stop if the key is nearly orthogonal to the direction: the update would be huge."""
        _, cosine = denominator_of(u, key)
        if not cosine >= self.config.min_cosine:
            stop(
                self.run,
                f"{name}: the key is nearly orthogonal to the update's direction (cosine "
                f"{cosine:.2g}, limit {self.config.min_cosine:g}), so the update would be huge; "
                "write words before the subject, or use keys=averaged and a larger ridge",
            )

    def guard_update(
        self, left: torch.Tensor, right: torch.Tensor, bare: Context, name: str
    ) -> dict[str, float | None]:
        """Try the update on the weight, take it back, and stop if it is too large or does damage.

        Returns the target's probability, ‖ΔW‖/‖W‖ and the growth of the perplexity.
        """
        if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
            raise hubedit.MethodError(f"{name}: the update is not finite; use keys=averaged")
        weight = self.model.weight(self.site.weight)
        length = max(float(weight.detach().float().norm()), 1e-30)
        ratio = float(left.norm()) * float(right.norm()) / length
        if ratio > self.config.max_norm_ratio:
            stop(
                self.run,
                f"{name}: the update is {ratio:.2g} times as large as the weight (limit "
                f"{self.config.max_norm_ratio:g}); use a smaller clamp_factor or another layer",
            )
        with trial(weight, (left @ right).to(weight.device)):
            [probability] = target_probabilities(self.model, [bare])
            growth = self.canary.ratio(self.model)
        if growth is not None and growth > self.config.max_canary_ratio:
            stop(
                self.run,
                f"{name}: the perplexity on {len(self.canary.texts)} held-out texts would grow "
                f"{growth:.3g} times (limit {self.config.max_canary_ratio:g}); use a smaller "
                "clamp_factor or another layer",
            )
        if not probability >= self.config.min_probability:
            self.run.log(
                f"{name}: the target's probability is only {probability:.2g} after the edit; "
                "try more steps, a larger clamp_factor or another layer"
            )
        return {"probability": probability, "norm_ratio": ratio, "canary_ratio": growth}


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


@torch.no_grad()
def read_keys(
    model: hubedit.EditableModel, site: Site, contexts: Sequence[Context]
) -> torch.Tensor:
    """The matrix's input at the subject's last token of each context, float64 [contexts, d]."""
    batch = Batch.of(model, [context.reading for context in contexts])
    with model.trace(site.mlp_out, stop=True) as seen:
        model.model(**batch.inputs)
    return doubles(batch.at_subjects(seen.input))


@torch.no_grad()
def answers_of(model: hubedit.EditableModel, row: hubedit.FactEdit, bare: Context) -> list[int]:
    """First tokens of what the fact's answer was and shall be.

    The old answer is the row's `true_target` if it has one, and what the model says now.
    """
    logits = model.model(**model.inputs([bare.reading])).logits
    answers = {int(logits[0, bare.reading.places[0]].argmax()), bare.target[0]}
    if row.true_target:
        before = row.model_copy(update={"target": row.true_target})
        answers.add(place(model, before, "").target[0])
    return sorted(answers)
