"""An evaluation as rows for people, as Markdown, and as the `model-index` of a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from hubedit.evaluating.evaluation import Evaluation
from hubedit.evaluating.metrics import MEMORY, MENG, METRICS, MITCHELL
from hubedit.evaluating.scoring import Score

TITLES = {
    "rewrite": "the fact as it was asked for",
    "paraphrase": "the fact in other words",
    "portability": "what follows from it",
    "neighbour": "facts about others",
    "attribute": "other facts of the subjects",
    "all": "together",
    "neutral": "neutral texts",
    "text": "texts that are written",
}
DEFINITIONS = {
    **{name: f"{metric.definition} ({metric.source})" for name, metric in METRICS.items()},
    "score-success": "S: harmonic mean of the success of rewrite, paraphrase and neighbour "
    f"({MENG})",
    "score-exact": "harmonic mean of the exact accuracy of rewrite, paraphrase and neighbour "
    f"({MEMORY})",
    "perplexity": "exp of the mean −log p of a token; for a masked model, of a token that is "
    "masked by itself (Salazar et al. 2020, arXiv:1910.14659)",
    "divergence": "mean D(before ‖ after), after Kullback and Leibler, of the predictions at each "
    f"place, in nats (a locality loss of {MITCHELL})",
    "fluency": f"½(⅔H₂ + 4⁄3H₃): weighted entropy of word n-grams, in bits ({MENG})",
    "consistency": f"cosine of TF-IDF vectors of what is written and of reference texts ({MENG})",
}
"""What every metric measures and where it is from, by its name."""
SHARES = frozenset(
    {name for name, metric in METRICS.items() if metric.share or "tokens" in name}
    | {"score-success", "score-exact"}
)


def shown(metric: str, value: float | None) -> str:
    """A figure for people: a share in per cent, anything else with three digits."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.3g}"


def interval(score: Score) -> str:
    """The 95 % interval for people."""
    if score.low is None or score.high is None:
        return "–"
    return f"{shown(score.metric, score.low)} to {shown(score.metric, score.high)}"


HEADS = ("group", "metric", "before", "after", "95 % interval", "n")


def rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Every score as cells, under `HEADS`."""
    return [
        (
            score.group,
            score.metric,
            shown(score.metric, score.before),
            shown(score.metric, score.after),
            interval(score),
            str(score.n),
        )
        for score in scores
    ]


def markdown(found: Evaluation) -> str:
    """The whole evaluation as a page."""
    lines = [
        f"# {found.after}",
        "",
        f"Beside {found.before}, on {found.n} cases ({found.cases}).",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|---" * len(HEADS) + "|",
    ]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows(found.scores)]
    lines += ["", "Intervals are Wilson's for shares, and from resampling cases otherwise.", ""]
    used = dict.fromkeys(score.metric for score in found.scores)
    lines += [f"- `{name}`: {DEFINITIONS[name]}" for name in used]
    if found.skipped:
        lines += ["", "Not measured:", ""]
        lines += [f"- `{one.metric}`: {one.reason}" for one in found.skipped]
    return "\n".join(lines) + "\n"


def model_index(found: Evaluation) -> str:
    """The `model-index` block of a model card, as YAML."""
    results: list[dict[str, Any]] = [
        {
            "task": {"type": found.task, "name": TITLES[score.group]},
            "dataset": {
                "type": "hubedit-cases",
                "name": found.cases,
                "split": score.group,
                "args": {"n": score.n},
            },
            "metrics": [
                {
                    "type": score.metric,
                    "name": DEFINITIONS[score.metric],
                    "value": score.after,
                }
            ],
        }
        for score in found.scores
    ]
    block = {"model-index": [{"name": found.after, "results": results}]}
    text: str = yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=100_000)
    return text
