"""A request in batches, each an edit of its own, stopped before the model gets worse than asked."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubedit import chat, disclosure, probes, revisions, run
from hubedit.context import Silent, Talk
from hubedit.editions import Edition, edits_of
from hubedit.errors import ConfigError, HubEditError, MethodError, RecipeError, near_misses
from hubedit.evaluating.neutral import Predictions, read, read_on
from hubedit.places import checkpoint
from hubedit.rows import Row
from hubedit.run import Applied, Job

if TYPE_CHECKING:
    from hubedit.models import LoadedModel
    from hubedit.updates import StoredTensor

TEXTS = 16
"""Neutral texts whose perplexity is followed: the first of the corpus."""


@dataclass(frozen=True)
class Measure:
    """One thing that is watched: what it is, whether it may not fall or not rise, and how far."""

    words: str
    least: bool
    limit: float


MEASURES: Mapping[str, Measure] = {
    "recall": Measure("share of all facts edited so far that are answered", True, 0.5),
    "perplexity": Measure("perplexity of neutral texts, as a ratio to the start's", False, 2.0),
    "norm": Measure("‖W − W₀‖ / ‖W₀‖ of the tensor that moved furthest from the base", False, 10.0),
}
"""The canaries by name; Gupta et al. 2024 (arXiv:2401.07453) show what they warn of."""


@dataclass(frozen=True)
class Reading:
    """What was measured after one batch; None where it cannot be."""

    batch: int
    edit: str
    rows: int
    figures: Mapping[str, float | None]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"batch": self.batch, "edit": self.edit, "rows": self.rows, **self.figures}


@dataclass(frozen=True)
class Ended:
    """The good batches: the edits in order, what was measured, and why no more were made."""

    directory: Path
    edits: Sequence[Applied]
    readings: Sequence[Reading]
    batches: int
    stopped: str | None


class _Broken(MethodError):
    """A canary passed its limit."""


def read_limits(given: Sequence[str]) -> dict[str, float]:
    """Limits of the canaries, `NAME=NUMBER`, over the usual ones; `NAME=off` watches it no more.

    Raises:
        ConfigError: there is no canary of that name, or this is no number.
    """
    limits = {name: measure.limit for name, measure in MEASURES.items()}
    for text in given:
        name, _, value = text.partition("=")
        if name not in MEASURES:
            raise ConfigError(f"no canary is named {name!r}; {near_misses(name, MEASURES)}")
        try:
            limits[name] = float(value)
        except ValueError as error:
            if value != "off":
                raise ConfigError(
                    f"the limit of {name} is {value!r}; give a number, or `off`"
                ) from error
            del limits[name]
    return limits


def apply_in_batches(
    job: Job,
    size: int,
    output: Path | None = None,
    *,
    limits: Mapping[str, float] | None = None,
    force: bool = False,
    talk: Talk | None = None,
    publish: Callable[[Applied], object] | None = None,
) -> Ended:
    """Apply a request's rows in batches, in their order, each as an edit on top of the one before.

    After each batch the rebuilt model is measured. Where a measure passes its limit, or the method
    refuses the batch, the batch is left out and the run ends with those before it.

    Args:
        job: a recipe that is prepared.
        size: rows of a batch.
        output: directory of the last revision, by default named as `run.apply` does.
        limits: by the names of `MEASURES`; the usual ones by default.
        force: overrule the method's own guards.
        talk: how progress is told.
        publish: called with each good edit, in order, once all are made.

    Raises:
        RecipeError: the method unlearns, or a batch has no row.
        HubEditError: the first batch failed, or broke a limit: nothing is written.
    """
    talk = talk or Silent()
    if size < 1:
        raise RecipeError(f"a batch has at least one row, not {size}")
    if job.method.kind != "edit":
        raise RecipeError(
            f"method {job.method.name!r} unlearns, and a request to forget is one whole; leave "
            "--batch out"
        )
    if output is not None:
        revisions.check_output(output)
    limits = read_limits([]) if limits is None else limits
    batches = [job.rows[at : at + size] for at in range(0, len(job.rows), size)]
    good: list[Applied] = []
    watch = _Watch(job, limits, talk)
    stopped = None
    with tempfile.TemporaryDirectory(prefix="hubedit-") as scratch:
        start = job.start
        for number, rows in enumerate(batches, start=1):
            talk.log(f"batch {number} of {len(batches)}")
            key = None
            if job.key is not None:
                key = disclosure.edit_key(start.stack.result, rows)
            weights = job.weights and publish is not None
            step = replace(job, rows=rows, start=start, weights=weights, key=key)
            try:
                watch.begin(number, job.rows[: (number - 1) * size + len(rows)])
                applied = run.apply(
                    step, Path(scratch, f"{number:04d}"), force=force, talk=talk, check=watch
                )
            except HubEditError as error:
                if not good:
                    raise
                stopped = f"batch {number} of {len(batches)} is left out: {error}"
                break
            good.append(applied)
            watch.keep(applied.manifest.edit)
            start = edits_of(str(applied.directory), job.start.hub, job.start.base_given)
        output = output or Path(f"{run.base_name(job.start)}-{good[-1].manifest.edit}")
        _finish(good[-1].directory, start, output, weights=job.weights)
        for applied in good if publish is not None else ():
            assert publish is not None
            publish(applied)
    return Ended(output, good, watch.readings, len(batches), stopped)


def _finish(last: Path, edition: Edition, output: Path, *, weights: bool) -> None:
    """Put the last good revision where it was asked for."""
    if weights and not edition.stack.weights:
        revisions.materialized(edition, output)
        return
    with revisions.finished_directory(output) as work:
        shutil.copytree(last, work, dirs_exist_ok=True)


class _Watch:
    """Measures the rebuilt model of each batch, and stops what passes a limit."""

    def __init__(self, job: Job, limits: Mapping[str, float], talk: Talk) -> None:
        self._job, self._limits, self._talk = job, limits, talk
        self._stored = checkpoint(job.start.base)
        self._texts = list(job.corpus.texts[:TEXTS]) if job.corpus else []
        self._usual: float | None = None
        self._batch, self._rows = 0, list[Row]()
        self._figures: dict[str, float | None] = {}
        self.readings: list[Reading] = []

    def begin(self, batch: int, rows: Sequence[Row]) -> None:
        """The next batch: its number, and all rows up to its last."""
        self._batch, self._rows = batch, list(rows)

    def keep(self, edit: str) -> None:
        """The batch is good."""
        self.readings.append(Reading(self._batch, edit, len(self._rows), self._figures))

    def start(self, model: LoadedModel) -> None:
        """Measure what the first batch starts from."""
        if self._batch > 1:
            return
        self._usual = self._mean_nll(model)
        if self._usual is None and "perplexity" in self._limits:
            self._talk.log(
                "the perplexity of neutral texts is not watched, since there are none; name some "
                "with --corpus, or say --canary perplexity=off"
            )

    def end(self, model: LoadedModel, changed: Mapping[str, StoredTensor]) -> Mapping[str, Any]:
        """Measure the rebuilt model; what goes into the manifest.

        Raises:
            MethodError: a limit is passed.
        """
        self._figures = {
            "recall": self._recall(model),
            "perplexity": self._rise(self._mean_nll(model)),
            "norm": self._norm(changed),
        }
        for name, found in self._figures.items():
            measure, limit = MEASURES[name], self._limits.get(name)
            if found is not None and not math.isfinite(found):
                raise _Broken(f"{name} is not finite ({measure.words})")
            if found is None or limit is None:
                continue
            if found < limit if measure.least else found > limit:
                side = "below" if measure.least else "above"
                raise _Broken(f"{name} is {found:.4g}, {side} {limit:.4g} ({measure.words})")
        return {"rows": len(self._rows), "limits": dict(self._limits), **self._figures}

    def _mean_nll(self, model: LoadedModel) -> float | None:
        """Mean −log p of the tokens of all texts, in nats, or None where there are none."""
        ask = read_on if model.layout.architecture == "seq2seq" else read
        texts: Sequence[Predictions] = ask(model, self._texts)
        places = sum(len(text.targets) for text in texts)
        return sum(text.nll for text in texts) / places if places else None

    def _rise(self, now: float | None) -> float | None:
        """The perplexity as a ratio to the start's: e to the difference of mean losses."""
        if now is None or self._usual is None:
            return None
        risen = now - self._usual
        return round(math.exp(risen), 6) if risen < 100 else math.inf

    def _recall(self, model: LoadedModel) -> float | None:
        rows: Sequence[Row] = self._rows
        if self._job.recipe.chat:
            rows = chat.through_template(rows, model.tokenizer)
        asked = [question for question in probes.questions(rows) if question.group == "rewrite"]
        if not asked:
            return None
        answers = probes.ask(model, asked)
        right = [
            (answer.answer or "").strip() == (question.target or "").strip()
            for question, answer in zip(asked, answers, strict=True)
        ]
        return round(sum(right) / len(right), 6)

    def _norm(self, changed: Mapping[str, StoredTensor]) -> float | None:
        ratios = []
        for name, after in changed.items():
            if name not in self._stored.tensors:
                continue
            before = self._stored.read(name).to_float32().astype(np.float64)
            moved = after.to_float32().astype(np.float64) - before
            whole = float(np.linalg.norm(before))
            if whole:  # of a tensor of zeros there is no part
                ratios.append(float(np.linalg.norm(moved)) / whole)
        return round(max(ratios), 6) if ratios else None
