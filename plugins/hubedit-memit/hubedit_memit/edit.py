"""Many facts at once, from rows to low-rank updates of some layers, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from hubedit_rome.batches import target_probabilities
from hubedit_rome.contexts import Context, place_all, with_something_before
from hubedit_rome.guard import Canary, stop, trial
from hubedit_rome.prefixes import sample_prefixes
from hubedit_rome.site import Site, at_rest, doubles, doubles_on
from hubedit_rome.statistics import SecondMoment, gather_texts, moments_of

import hubedit
from hubedit_memit.config import ManyFactsConfig
from hubedit_memit.conflicts import grouped, replaced, without_repeats
from hubedit_memit.keys import Layer, Prepare, keep, recall_keys
from hubedit_memit.layers import check_layers, default_layers
from hubedit_memit.states import Weighed, read, weigh
from hubedit_memit.values import Wish, optimise


def apply(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    config: ManyFactsConfig,
    run: hubedit.RunContext,
    prepare: Prepare,
    single: bool = False,
    sequential: bool = False,
) -> None:
    """Write all rows, batch after batch; see `Memit.apply`.

    Args:
        prepare: the closed form of the method.
        single: whether one layer is edited where the settings name none.
        sequential: whether the keys of the edits below in the stack are kept, and these for those
            that follow.
    """
    rows, layout = without_repeats(rows), model.layout.reader
    chosen = config.layers
    if chosen == "auto":
        chosen = default_layers(layout, model.model.config, single)
    sites = [Site.find(model, layer) for layer in check_layers(layout, chosen)]
    with at_rest(model.model):
        prefixes = sample_prefixes(model, config.prefixes, config.prefix_top_k, run, rows)
        run.record("prefixes", prefixes)
        texts = gather_texts(model, sites[-1], config, run)
        moments = moments_of(model, sites, texts, config, run)
        run.record("statistics", [_described(*pair) for pair in zip(sites, moments, strict=True)])
        run.record(
            "texts",
            {
                "source": texts.source,
                "digest": texts.digest,
                "texts": len(texts.counted),
                "held_out": len(texts.held_out),
            },
        )
        device = doubles_on(model.device)
        editing = _Editing(
            model,
            [
                Layer(site, prepare(moment.matrix.to(device)))
                for site, moment in zip(sites, moments, strict=True)
            ],
            config,
            run,
            prefixes,
            Canary(model, texts.held_out, rows),
        )
        if sequential:
            editing.remember(run.earlier, rows)
        size = config.batch or len(rows)
        for start in range(0, len(rows), size):
            if not editing.write(rows[start : start + size], start):
                break
        if sequential:
            keep(editing.layers, run)


def _described(site: Site, moment: SecondMoment) -> dict[str, Any]:
    return {
        "module": site.mlp_out,
        "tokens": moment.tokens,
        "error": moment.error,
        "artifact": moment.artifact,
    }


@dataclass(frozen=True)
class _Placed:
    """One row in its contexts: the bare prompt, and all that keys are read in."""

    prompt: Context
    usable: Sequence[Context]

    @property
    def bare(self) -> Sequence[Context]:
        return self.usable[:1] if self.usable[0] is self.prompt else []

    @property
    def prefixed(self) -> Sequence[Context]:
        return self.usable[len(self.bare) :]


@dataclass(frozen=True)
class _Update:
    """ΔW = left · right of one layer, float32, in the weight's own orientation."""

    site: Site
    left: torch.Tensor
    right: torch.Tensor
    keys: torch.Tensor
    norm_ratio: float

    @property
    def product(self) -> torch.Tensor:
        return self.left @ self.right


@dataclass(frozen=True)
class _Canaries:
    """How the perplexity on held-out texts grew since the start, and what is left of `done`."""

    growth: float | None
    recall: float | None


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


@dataclass
class _Editing:
    """What all batches of a run share."""

    model: hubedit.EditableModel
    layers: Sequence[Layer]
    config: ManyFactsConfig
    run: hubedit.RunContext
    prefixes: Sequence[str]
    canary: Canary
    history: dict[str, list[_Placed]] = field(default_factory=dict)
    """The rows that were written, by the name of their key."""
    done: list[Context] = field(default_factory=list)
    """The bare prompts of the rows that were written and reached their targets."""
    figures: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)

    def remember(self, edits: Sequence[hubedit.Earlier], rows: Sequence[hubedit.FactEdit]) -> None:
        """Take over the keys that the edits below kept, and what they said of the same subjects.

        An edit whose request is not disclosed has kept none.

        Args:
            rows: what is to be written now.
        """
        subjects = grouped(rows, together=True)
        for edit in edits:
            if self.config.subjects == "apart" or edit.rows is None:
                continue
            facts = [row for row in edit.rows if isinstance(row, hubedit.FactEdit)]
            for name, group in grouped(facts, together=True).items():
                if name not in subjects:
                    continue
                now = [rows[index] for index in subjects[name]]
                again = [facts[index] for index in group if not replaced(facts[index], now)]
                if again:
                    wishes = [self.placed(row, f"“{row.text}” of {edit.edit}") for row in again]
                    self.history.setdefault(name, []).extend(wishes)
        if missing := recall_keys(self.layers, edits, doubles_on(self.model.device)):
            self.run.log(f"{'; '.join(missing)}: this edit may undo some of what was written there")

    @property
    def place(self) -> str:
        """The module whose output is to become z*: the last edited block.

        Where a block normalises what it has added up, it is the matrix, whose output is added.
        """
        site = self.layers[-1].site
        return site.mlp_out if self.model.layout.reader.post_norm else site.block

    def write(self, rows: Sequence[hubedit.FactEdit], start: int) -> bool:
        """Write one batch of rows on the model as it is now; `start` rows were written before.

        Returns false, with the model as it was, if a guard stopped a batch that is not the first.
        """
        written = [
            self.placed(row, f"row {number} (“{row.text}”)")
            for number, row in enumerate(rows, start + 1)
        ]
        groups = grouped(rows, self.config.subjects == "together", start)
        # What was written about a subject before is wished for again, since its key has one value.
        wanted = [
            [*self.history.get(name, []), *(written[index] for index in group)]
            for name, group in groups.items()
        ]
        count = self.config.value_prefixes + 1
        deltas, values = self.optimised(
            [
                Wish(rows[group[0]].subject, [one.usable[:count] for one in wishes])
                for group, wishes in zip(groups.values(), wanted, strict=True)
            ]
        )
        weighed = [
            weigh(
                [context for one in wishes for context in one.bare],
                [context for one in wishes for context in one.prefixed],
                self.config.bare_weight,
                self.config.residual == "averaged",
            )
            for wishes in wanted
        ]
        with ExitStack() as tried:
            updates = self.spread(list(groups), weighed, deltas, tried)
            probabilities = target_probabilities(self.model, [own.prompt for own in written])
            canaries = _Canaries(self.canary.ratio(self.model), self.recall())
        problem = self.problem(updates, canaries)
        name = f"rows {start + 1} to {start + len(rows)}"
        if problem and start and self.config.on_collapse == "keep" and not self.run.force:
            self.run.log(f"{name} and those after them were left out: {problem}")
            self.run.record("left_out", {"from_row": start + 1, "reason": problem})
            return False
        if problem:
            stop(self.run, f"{name}: {problem}")
        for layer, update in zip(self.layers, updates, strict=True):
            left, right = update.left.cpu().numpy(), update.right.cpu().numpy()
            self.model.update(update.site.weight, hubedit.LowRank(left, right))
            layer.keys |= dict(zip(groups, update.keys.T, strict=True))
        self.history |= dict(zip(groups, wanted, strict=True))
        of_row = {
            index: value
            for group, value in zip(groups.values(), values, strict=True)
            for index in group
        }
        figures = [of_row[index] for index in range(len(rows))]
        prompts = [own.prompt for own in written]
        self.report(rows, start, figures, probabilities, updates, canaries)
        self.done += [
            prompt
            for prompt, probability in zip(prompts, probabilities, strict=True)
            if probability >= self.config.min_probability
        ]
        return True

    def recall(self) -> float | None:
        """The share of rows that had reached their targets and still do; None of none."""
        likely = target_probabilities(self.model, self.done)
        still = [probability >= self.config.min_probability for probability in likely]
        return sum(still) / len(still) if still else None

    def placed(self, row: hubedit.FactEdit, name: str) -> _Placed:
        """A row after every prefix, without the contexts whose keys tell nothing of the subject."""
        everywhere = place_all(self.model, row, self.prefixes)
        usable: Sequence[Context] = everywhere
        skip = self.config.skip_first
        if self.model.layout.reader.first_token_sink if skip is None else skip:
            usable = with_something_before(everywhere)
        if len(usable) < len(everywhere):
            self.run.log(
                f"{name}: the subject is the first token, where keys say nothing of it; "
                "the edit is made for the prompt with words before it"
            )
        return _Placed(everywhere[0], usable)

    def optimised(self, wishes: Sequence[Wish]) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        """Every δ, float64 [width, wishes], and the figures of each optimisation."""
        size, count = self.config.rows_at_once, len(wishes)
        deltas, figures = [], []
        with self.run.progress("z*", total=self.config.steps * math.ceil(count / size)) as bar:
            for start in range(0, count, size):
                part = wishes[start : start + size]
                found = optimise(self.model, self.place, part, self.config, bar)
                deltas.append(doubles(found.deltas))
                figures += [
                    {"loss": loss, "optimised_probability": probability, "steps": steps}
                    for loss, probability, steps in zip(
                        found.losses, found.probabilities, found.steps, strict=True
                    )
                ]
        return torch.cat(deltas).T, figures

    def spread(
        self,
        names: Sequence[str],
        weighed: Sequence[Weighed],
        deltas: torch.Tensor,
        tried: ExitStack,
    ) -> list[_Update]:
        """Let each layer add its share of what is left of δ (Meng et al. 2023, equations 20, 21).

        Each update stays on its weight until `tried` is closed, so that later layers see it.
        """
        updates: list[_Update] = []
        begin: torch.Tensor | None = None
        for index, layer in enumerate(self.layers):
            keys, states = read(self.model, layer.site, self.place, weighed)
            begin = states if begin is None else begin
            left_over = begin + deltas.to(begin.device) - states
            residual = left_over / (len(self.layers) - index)
            update = self.factors(layer, keys, residual, names)
            weight = self.model.weight(layer.site.weight)
            tried.enter_context(trial(weight, update.product.to(weight.device)))
            updates.append(update)
        return updates

    def factors(
        self,
        layer: Layer,
        keys: torch.Tensor,
        residual: torch.Tensor,
        names: Sequence[str],
    ) -> _Update:
        """ΔW of one layer as it is handed over: float32, as the weight lies.

        Raises:
            MethodError: the equations are singular, or the update is not finite.
        """
        left, right = layer.factors(keys, residual, names)
        if layer.site.conv1d:
            left, right = right.T, left.T
        left, right = left.float().contiguous(), right.float().contiguous()
        if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
            raise hubedit.MethodError(
                f"the update of {layer.site.weight} is not finite; set ridge higher"
            )
        weight = self.model.weight(layer.site.weight).detach().float()
        length = float((left @ right).norm()) / max(float(weight.norm()), 1e-30)
        return _Update(layer.site, left, right, keys, length)

    def problem(self, updates: Sequence[_Update], canaries: _Canaries) -> str | None:
        """Why a batch should not be written: an update is too large or does damage."""
        config = self.config
        for update in updates:
            if update.norm_ratio > config.max_norm_ratio:
                return (
                    f"the update of {update.site.weight} is {update.norm_ratio:.2g} times as large "
                    f"as the weight (limit {config.max_norm_ratio:g}); use a smaller clamp_factor "
                    "or other layers"
                )
        growth, recall = canaries.growth, canaries.recall
        if growth is not None and growth > config.max_canary_ratio:
            return (
                f"the perplexity on {len(self.canary.texts)} held-out texts would grow "
                f"{growth:.3g} times (limit {config.max_canary_ratio:g}); use a smaller "
                "clamp_factor, other layers or fewer rows"
            )
        if recall is not None and recall < config.min_recall:
            return (
                f"only {recall:.0%} of the rows before them would still be answered (limit "
                f"{config.min_recall:.0%}); use fewer rows, or larger batches"
            )
        return None

    def report(
        self,
        rows: Sequence[hubedit.FactEdit],
        start: int,
        values: Sequence[dict[str, Any]],
        probabilities: Sequence[float],
        updates: Sequence[_Update],
        canaries: _Canaries,
    ) -> None:
        """Record the figures of a batch, and warn of targets that stay unlikely."""
        least = self.config.min_probability
        for value, probability in zip(values, probabilities, strict=True):
            found = {"probability": probability, **value}
            figures = {name: _finite(figure) for name, figure in found.items()}
            self.figures.append({**figures, "reached": probability >= least})
        missed = [
            row for row, probability in zip(rows, probabilities, strict=True) if probability < least
        ]
        if missed:
            self.run.log(
                f"rows {start + 1} to {start + len(rows)}: {len(missed)} targets have a "
                f"probability below {least:g} after the edit, such as that of “{missed[0].text}”; "
                "try fewer rows at once, more prefixes or other layers"
            )
        self.batches.append(
            {
                "rows": len(rows),
                "norm_ratios": {str(one.site.layer): one.norm_ratio for one in updates},
                "canary_ratio": _finite(canaries.growth),
                "recall": canaries.recall,
            }
        )
        self.run.record("rows", self.figures)
        self.run.record("batches", self.batches)
