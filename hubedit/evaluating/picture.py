"""The scores of an evaluation as a PNG: before and after, with intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence

from hubedit.evaluating.evaluation import Evaluation
from hubedit.evaluating.scoring import Score
from hubedit.evaluating.table import SHARES

INK, BEFORE, AFTER = "#333333", "#b8b8b8", "#2b6cb0"


def picture(found: Evaluation) -> bytes:
    """Draw every share of an evaluation; the same scores give the same bytes.

    A bar is the share after the edit, its line the 95 % interval, a tick the share before.
    """
    from matplotlib.figure import Figure

    scores = [score for score in found.scores if score.metric in SHARES]
    figure = Figure(figsize=(8.0, 0.9 + 0.26 * max(len(scores), 1)), dpi=110, facecolor="white")
    axes = figure.subplots()
    places = range(len(scores))
    axes.barh(places, [100 * score.after for score in scores], color=AFTER, height=0.6)
    axes.errorbar(
        [100 * score.after for score in scores],
        places,
        xerr=_errors(scores),
        fmt="none",
        ecolor=INK,
        elinewidth=1,
        capsize=2,
    )
    known = [
        (100 * score.before, y)
        for y, score in zip(places, scores, strict=True)
        if score.before is not None
    ]
    axes.scatter(
        [x for x, _ in known],
        [y for _, y in known],
        marker="|",
        s=90,
        color=BEFORE,
        zorder=3,
        label="before",
    )
    axes.set_yticks(places, [f"{score.group} {score.metric}" for score in scores])
    axes.invert_yaxis()
    axes.set_xlim(0, 104)
    axes.set_xlabel("per cent, with 95 % intervals; the grey tick is the model before", color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    for spine in ("top", "right", "left"):
        axes.spines[spine].set_visible(False)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def _errors(scores: Sequence[Score]) -> list[list[float]]:
    low = [
        100 * (score.after - (score.after if score.low is None else score.low)) for score in scores
    ]
    high = [
        100 * ((score.after if score.high is None else score.high) - score.after)
        for score in scores
    ]
    return [[max(0.0, value) for value in low], [max(0.0, value) for value in high]]
