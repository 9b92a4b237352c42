"""ROUGE-L between what a model says and what is true, by the rouge-score package."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


@cache
def _scorer(stem: bool) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stem)


def recall(truth: str, said: str) -> float:
    """ROUGE-L recall with Porter stemming, TOFU's variant: the share of the truth that is said."""
    return float(_scorer(True).score(truth, said)["rougeL"].recall)


def f_measure(truth: str, said: str, *, stem: bool = False) -> float:
    """ROUGE-L F1; MUSE does not stem, OpenUnlearning's version of MUSE does."""
    return float(_scorer(stem).score(truth, said)["rougeL"].fmeasure)
