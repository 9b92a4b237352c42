"""TOFU's aggregates, model utility and forget quality, from logs of single questions.

Source: Maini et al. 2024, arXiv:2401.06121. The logs are those that TOFU's own evaluation writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hubedit.errors import RequestError
from hubedit.forgetting import probability as p

Kind = Literal["questions", "options"]
"""`questions`: P(answer) as it is. `options`: P(answer) among the wrong answers."""

AVERAGINGS: tuple[p.Averaging, ...] = ("geometric", "arithmetic")
FILES: Mapping[str, tuple[str, Kind]] = {
    "eval_log.json": ("retain", "questions"),
    "eval_log_forget.json": ("forget", "questions"),
    "eval_real_author_wo_options.json": ("real authors", "options"),
    "eval_real_world_wo_options.json": ("world facts", "options"),
}
"""Names of TOFU's log files, and which set each holds."""


@dataclass(frozen=True)
class SetLog:
    """What one model says to the questions of one set.

    `answer` and `correct` are losses [questions], of the answer and of the paraphrased one (the
    answer again where there is none); `wrong` are losses [questions, wrong answers]; `recall` is
    ROUGE-L recall of the greedy answer [questions].
    """

    kind: Kind
    answer: NDArray[np.float64]
    correct: NDArray[np.float64]
    wrong: NDArray[np.float64]
    recall: NDArray[np.float64]

    def log_truth_ratio(self, averaging: p.Averaging = "geometric") -> NDArray[np.float64]:
        """Per question; see `probability.log_truth_ratio`."""
        return p.log_truth_ratio(self.correct, self.wrong, averaging)

    def probability(self) -> float:
        """Mean probability of the answer, among the options where the set has options."""
        if self.kind == "options":
            return float(p.among(self.answer, self.wrong).mean())
        return float(p.probability(self.answer).mean())


@dataclass(frozen=True)
class Utility:
    """Model utility: `value` is the harmonic mean of `parts`, which are named "set measure"."""

    value: float
    averaging: p.Averaging
    parts: Mapping[str, float] = field(default_factory=dict)


def harmonic_mean(values: Sequence[float]) -> float:
    """n / Σ 1/v; 0 if any value is 0.

    Raises:
        ValueError: there are no values, or one is negative or no number.
    """
    if not values or not all(value >= 0 for value in values):
        raise ValueError("a harmonic mean is of numbers that are not negative")
    return 0.0 if min(values) == 0 else len(values) / sum(1 / value for value in values)


def utility(sets: Mapping[str, SetLog], averaging: p.Averaging = "geometric") -> Utility:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio on each set to be kept.

    TOFU has three sets (retain, real authors, world facts) and so nine numbers. Its paper and
    trainer average wrong answers arithmetically, its leaderboard geometrically.

    Raises:
        ValueError: `sets` is empty or holds the set `forget`.
    """
    if not sets or "forget" in sets:
        raise ValueError("model utility is of the sets to be kept; give at least one, not `forget`")
    parts: dict[str, float] = {}
    for name, log in sets.items():
        parts[f"{name} probability"] = log.probability()
        parts[f"{name} recall"] = float(log.recall.mean())
        parts[f"{name} truth ratio"] = p.truer(log.log_truth_ratio(averaging))
    return Utility(harmonic_mean(list(parts.values())), averaging, parts)


@dataclass(frozen=True)
class ForgetQuality:
    """Two-sample Kolmogorov-Smirnov test of truth ratios against those of a retrained model.

    `p` is two-sided; `log10_p` stays finite where `p` is below what a float holds. The test sees
    more with more questions: `n` are those of each model.
    """

    statistic: float
    p: float
    log10_p: float
    n: tuple[int, int]


def forget_quality(unlearned: ArrayLike, oracle: ArrayLike) -> ForgetQuality:
    """p of the hypothesis that both models' truth ratios come from one distribution.

    Args:
        unlearned: (log) truth ratios on the forget set [questions]; logarithms give the same p.
        oracle: those of the model that was trained without the forget set.
    """
    from scipy import stats

    ours = np.asarray(unlearned, dtype=np.float64)
    theirs = np.asarray(oracle, dtype=np.float64)
    found = stats.ks_2samp(ours, theirs)
    statistic, value = float(found.statistic), float(found.pvalue)
    if value > 0:
        log10 = math.log10(value)
    else:  # below the smallest float: the asymptotic tail, by its logarithm
        size = len(ours) * len(theirs) / (len(ours) + len(theirs))
        log10 = (math.log(2) - 2 * size * statistic**2) / math.log(10)
    return ForgetQuality(statistic, value, log10, (len(ours), len(theirs)))


def read_logs(path: Path) -> dict[str, SetLog]:
    """Read TOFU's logs: `eval_log_aggregated.json`, one of the four single files, or their folder.

    Raises:
        RequestError: nothing there is such a log; says what is missing.
    """
    if path.is_dir():
        whole = path / "eval_log_aggregated.json"
        files = [whole] if whole.is_file() else [path / name for name in FILES]
        found = {file.name: _json(file) for file in files if file.is_file()}
    else:
        found = {path.name: _json(path)}
    records: dict[str, Any] = {}
    for name, content in found.items():
        records |= {name: content} if name in FILES else content
    logs = {FILES[name][0]: _set_log(name, each) for name, each in records.items() if name in FILES}
    if not logs:
        raise RequestError(f"{path} holds none of TOFU's logs {', '.join(FILES)}")
    return logs


@dataclass(frozen=True)
class Aggregates:
    """What TOFU says of one model; each by how the wrong answers of a question are averaged.

    `utility` needs the sets to be kept, `quality` the set `forget` of both models.
    """

    utility: Mapping[p.Averaging, Utility]
    quality: Mapping[p.Averaging, ForgetQuality]


def from_logs(unlearned: Path, oracle: Path | None = None) -> Aggregates:
    """TOFU's aggregates from its own logs, in both published variants.

    Args:
        unlearned: logs of the model; see `read_logs`.
        oracle: logs of the model that was trained without the forget set.

    Raises:
        RequestError: there are no such logs, or they lack the set that forget quality is of.
    """
    kept = {name: log for name, log in read_logs(unlearned).items() if name != "forget"}
    quality: dict[p.Averaging, ForgetQuality] = {}
    if oracle is not None:
        ours, theirs = _forget_set(unlearned), _forget_set(oracle)
        quality = {
            each: forget_quality(ours.log_truth_ratio(each), theirs.log_truth_ratio(each))
            for each in AVERAGINGS
        }
    return Aggregates({each: utility(kept, each) for each in AVERAGINGS if kept}, quality)


def _forget_set(path: Path) -> SetLog:
    logs = read_logs(path)
    if "forget" not in logs:
        raise RequestError(f"{path} has no eval_log_forget.json, which forget quality is of")
    return logs["forget"]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as a JSON log") from error
    if not isinstance(value, dict):
        raise RequestError(f"{path} is no log of TOFU: it holds no object")
    return value


def _set_log(name: str, record: Mapping[str, Any]) -> SetLog:
    keys = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall")
    missing = [key for key in keys if key not in record]
    if missing:
        raise RequestError(f"the log {name} lacks {', '.join(missing)}")
    order = list(record["avg_paraphrased_loss"])
    columns = [_column(name, record[key], order, key) for key in keys]
    answer, correct, wrong, recall = (np.asarray(column, dtype=np.float64) for column in columns)
    return SetLog(FILES[name][1], answer, correct, wrong, recall)


def _column(name: str, values: Mapping[str, Any], order: Sequence[str], key: str) -> list[Any]:
    """The values of one measure in the order of the questions, which TOFU keys by their index."""
    if set(values) != set(order):
        raise RequestError(f"the log {name} has other questions in {key} than elsewhere")
    return [values[index] for index in order]
