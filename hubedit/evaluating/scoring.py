"""Scores of one or many edits: what was heard before and after, as figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hubedit.evaluating.answers import Heard
from hubedit.evaluating.cases import GROUPS, Item
from hubedit.evaluating.intervals import bootstrap, bootstrap_mean
from hubedit.evaluating.metrics import METRICS, Metric, harmonic
from hubedit.evaluating.neutral import Shift
from hubedit.evaluating.texts import perplexity
from hubedit.manifest import Record
from hubedit.words import wilson

SCORED = ("rewrite", "paraphrase", "neighbour")
"""The groups of which the score S is the harmonic mean."""


class Score(Record):
    """One figure, before and after an edit, with the 95 % interval of the latter.

    `n` counts what it is a mean over: prompts, texts, or cases. Shares are in [0, 1]; `before` is
    None where the figure compares, and `low` and `high` are None where there is no interval.
    """

    group: str
    metric: str
    before: float | None
    after: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Told:
    """What was heard of items before and after one edit; `edit` numbers the edits of a run."""

    edit: int
    items: Sequence[Item]
    before: Sequence[Heard]
    after: Sequence[Heard]


@dataclass
class _Column:
    cases: list[int] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)


def item_scores(told: Iterable[Told], seed: int = 0) -> list[Score]:
    """Every metric of items over all edits, by group, and the scores S."""
    columns: dict[tuple[str, str], _Column] = {}
    names: dict[tuple[int, int], int] = {}
    for one in told:
        for item, before, after in zip(one.items, one.before, one.after, strict=True):
            case = names.setdefault((one.edit, item.case), len(names))
            for metric in METRICS.values():
                if item.group in metric.groups:
                    _add(columns, case, metric, item, before, after)
    found = [
        _score(group, metric, columns[group, metric.name], seed)
        for group in GROUPS
        for metric in METRICS.values()
        if (group, metric.name) in columns
    ]
    return found + [
        score
        for name in ("success", "exact")
        if (score := _harmonic(name, columns, len(names), seed)) is not None
    ]


def _add(
    columns: dict[tuple[str, str], _Column],
    case: int,
    metric: Metric,
    item: Item,
    before: Heard,
    after: Heard,
) -> None:
    value = metric.judge(item, before, after)
    if value is None:
        return
    column = columns.setdefault((item.group, metric.name), _Column())
    column.cases.append(case)
    column.after.append(value)
    if not metric.compared:
        column.before.append(metric.judge(item, before, before) or 0.0)


def _score(group: str, metric: Metric, column: _Column, seed: int) -> Score:
    mean = float(np.mean(column.after))
    limits = (
        wilson(mean, len(column.after))
        if metric.share
        else bootstrap_mean(column.cases, column.after, seed)
    )
    return _rounded(
        group,
        metric.name,
        float(np.mean(column.before)) if column.before else None,
        mean,
        limits,
        len(column.after),
    )


def _harmonic(
    name: str, columns: dict[tuple[str, str], _Column], cases: int, seed: int
) -> Score | None:
    """S: the harmonic mean of a metric over rewrite, paraphrase and neighbour (Meng et al.)."""
    parts = [columns.get((group, name)) for group in SCORED]
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]

    def tally(values: Sequence[float], part: _Column) -> np.ndarray:
        return np.bincount(part.cases, np.asarray(values), minlength=cases).astype(np.float64)

    sums = [tally(part.after, part) for part in known]
    counts = [tally(np.ones(len(part.after)).tolist(), part) for part in known]

    def statistic(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [
                s[drawn].sum(-1) / np.maximum(c[drawn].sum(-1), 1)
                for s, c in zip(sums, counts, strict=True)
            ]
            inverse: np.ndarray = np.stack([1 / mean for mean in means]).sum(0)
            result: np.ndarray = len(means) / inverse
        return result

    before = harmonic([float(np.mean(part.before)) for part in known])
    after = harmonic([float(np.mean(part.after)) for part in known])
    return _rounded("all", f"score-{name}", before, after, bootstrap(cases, statistic, seed), cases)


def neutral_scores(shifts: Sequence[Shift], seed: int = 0) -> list[Score]:
    """Perplexity of neutral texts, and the divergence of predictions on them; none of no texts."""
    if not shifts:
        return []
    counts = np.array([one.places for one in shifts], dtype=np.float64)
    old = np.array([one.before for one in shifts])
    new = np.array([one.after for one in shifts])
    apart = np.array([one.divergence for one in shifts])

    def mean_apart(drawn: np.ndarray) -> np.ndarray:
        found: np.ndarray = apart[drawn].sum(-1) / counts[drawn].sum(-1)
        return found

    return [
        _rounded(
            "neutral",
            "perplexity",
            float(perplexity(old, counts)),
            float(perplexity(new, counts)),
            bootstrap(len(new), lambda drawn: perplexity(new[drawn], counts[drawn]), seed),
            len(new),
        ),
        _rounded(
            "neutral",
            "divergence",
            None,
            float(apart.sum() / counts.sum()),
            bootstrap(len(apart), mean_apart, seed),
            len(apart),
        ),
    ]


def text_score(
    metric: str,
    before: Sequence[str],
    after: Sequence[str],
    of: Callable[[int, str], float],
    seed: int = 0,
) -> Score:
    """The mean of a metric of texts, such as fluency; `of` is given a text's number too."""
    old = [of(number, text) for number, text in enumerate(before)]
    new = [of(number, text) for number, text in enumerate(after)]
    return _rounded(
        "text",
        metric,
        float(np.mean(old)),
        float(np.mean(new)),
        bootstrap_mean(range(len(new)), new, seed),
        len(new),
    )


def _rounded(
    group: str,
    metric: str,
    before: float | None,
    after: float,
    limits: tuple[float, float] | None,
    n: int,
) -> Score:
    low, high = limits or (None, None)
    return Score(
        group=group,
        metric=metric,
        before=None if before is None else round(before, 6),
        after=round(after, 6),
        low=None if low is None else round(low, 6),
        high=None if high is None else round(high, 6),
        n=n,
    )
