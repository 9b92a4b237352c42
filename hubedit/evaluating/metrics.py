"""The metrics of an edit: one table, each a function of what was heard before and after.

Sources: Meng et al. 2022 (arXiv:2202.05262) and 2023 (arXiv:2210.07229) for success, magnitude and
exact accuracy; Mitchell et al. 2022 (arXiv:2110.11309) for agreement with the answers before the
edit; Zhang et al. 2024 (arXiv:2401.01286) for accuracy by token and portability; Yang et al. 2025
(arXiv:2502.11177) for reporting free answers apart from those under teacher forcing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hubedit.evaluating.answers import Heard
from hubedit.evaluating.cases import CaseGroup, Item
from hubedit.probes import Scored

Value = float | None
Judge = Callable[[Item, Heard, Heard], Value]


def nll(score: Scored) -> float:
    """The mean over an answer's tokens of −log p, in nats."""
    return -sum(score.logprobs) / len(score.logprobs)


def probability(score: Scored) -> float:
    """e^−NLL: the geometric mean of the tokens' probabilities."""
    return math.exp(-nll(score))


def success(item: Item, before: Heard, after: Heard) -> Value:
    """1 if the answer has the smaller NLL of answer and rival; None if one is not known."""
    if after.target is None or after.rival is None:
        return None
    return float(nll(after.target) < nll(after.rival))


def magnitude(item: Item, before: Heard, after: Heard) -> Value:
    """e^−NLL of the answer less that of the rival, in [−1, 1]."""
    if after.target is None or after.rival is None:
        return None
    return probability(after.target) - probability(after.rival)


def likelihood(item: Item, before: Heard, after: Heard) -> Value:
    """e^−NLL of the answer."""
    return None if after.target is None else probability(after.target)


def exact(item: Item, before: Heard, after: Heard) -> Value:
    """1 if every token of the answer is the likeliest one under teacher forcing."""
    if after.target is None:
        return None
    return float(tuple(after.target.top_ids) == tuple(after.target.token_ids))


def tokens(item: Item, before: Heard, after: Heard) -> Value:
    """The share of the answer's tokens that are the likeliest ones under teacher forcing."""
    if after.target is None:
        return None
    pairs = list(zip(after.target.top_ids, after.target.token_ids, strict=True))
    return sum(top == token for top, token in pairs) / len(pairs)


def free(item: Item, before: Heard, after: Heard) -> Value:
    """1 if what the model writes freely begins with the answer, as whole words, case aside."""
    if item.target is None:
        return None
    said, wanted = (" ".join(text.split()).casefold() for text in (after.written, item.target))
    follows = said[len(wanted) : len(wanted) + 1]
    return float(bool(wanted) and said.startswith(wanted) and not follows.isalnum())


def unchanged(item: Item, before: Heard, after: Heard) -> Value:
    """1 if the likeliest tokens at all places of the answer are those from before the edit."""
    if before.target is None or after.target is None:
        return None
    return float(tuple(before.target.top_ids) == tuple(after.target.top_ids))


def unchanged_tokens(item: Item, before: Heard, after: Heard) -> Value:
    """The share of the answer's places whose likeliest token is that from before the edit."""
    if before.target is None or after.target is None:
        return None
    pairs = list(zip(before.target.top_ids, after.target.top_ids, strict=True))
    return sum(old == new for old, new in pairs) / len(pairs)


def unchanged_free(item: Item, before: Heard, after: Heard) -> Value:
    """1 if the first sentence that the model writes freely is the one from before the edit."""
    return float(before.answer == after.answer)


@dataclass(frozen=True)
class Metric:
    """One metric of items.

    `judge` gives a number for an item, or None where it does not apply; the metric is their mean
    over the items of a group. A share has Wilson's interval, anything else a bootstrap over cases.
    `compared` says that it needs the answers before the edit, so that there is no value before.
    """

    name: str
    judge: Judge
    groups: frozenset[CaseGroup]
    share: bool = True
    compared: bool = False
    source: str = ""

    @property
    def definition(self) -> str:
        """What is measured, in words."""
        return " ".join((self.judge.__doc__ or "").split())


_FOLLOW: frozenset[CaseGroup] = frozenset({"rewrite", "paraphrase", "portability"})
_STAY: frozenset[CaseGroup] = frozenset({"neighbour", "attribute"})
_RIVALS: frozenset[CaseGroup] = frozenset({"rewrite", "paraphrase", "neighbour"})
MENG = "Meng et al. 2022, arXiv:2202.05262"
MEMORY = "Meng et al. 2023, arXiv:2210.07229"
KNOWEDIT = "Zhang et al. 2024, arXiv:2401.01286"
MIRAGE = "Yang et al. 2025, arXiv:2502.11177"
MITCHELL = "Mitchell et al. 2022, arXiv:2110.11309"

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("success", success, _RIVALS, source=MENG),
        Metric("magnitude", magnitude, _RIVALS, share=False, source=MENG),
        Metric("probability", likelihood, _FOLLOW | _STAY, share=False, source=MENG),
        Metric("exact", exact, _FOLLOW | _STAY, source=MEMORY),
        Metric("tokens", tokens, _FOLLOW | _STAY, share=False, source=KNOWEDIT),
        Metric("free", free, _FOLLOW | _STAY, source=MIRAGE),
        Metric("unchanged", unchanged, _STAY, compared=True, source=MITCHELL),
        Metric(
            "unchanged-tokens",
            unchanged_tokens,
            _STAY,
            share=False,
            compared=True,
            source=KNOWEDIT,
        ),
        Metric("unchanged-free", unchanged_free, _STAY, compared=True, source=MIRAGE),
    )
}
"""Every metric of items, by name."""


def harmonic(values: Sequence[float]) -> float:
    """The harmonic mean of numbers ≥ 0; 0 if one is 0."""
    if not values or min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)
