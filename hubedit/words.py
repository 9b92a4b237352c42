"""How an edit is said in words: what the card, the review page and the terminal have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from hubedit.manifest import BaseRecord, Manifest, RequestRecord, ScoreRecord
from hubedit.markdown import counted, figure, nbytes, percent
from hubedit.measured import (
    curve_heads,
    curve_rows,
    gate_lines,
    made_of_lines,
    measure_rows,
)

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution: intervals are of 95 %."""
SHOWN = 20
"""How many items of a request are shown before the rest is left to manifest.json."""

_NOUNS = {
    "FactEdit": ("fact", "facts"),
    "ForgetConcept": ("concept", "concepts"),
    "ForgetQA": ("question", "questions"),
    "ForgetRow": ("item", "items"),
    "ForgetText": ("text", "texts"),
}
_TASKS = {"edit": "change", "unlearn": "forget"}

GROUPS = {
    "rewrite": "what was asked for",
    "paraphrase": "the same in other words",
    "forget": "what was to be forgotten",
    "retain": "what was to be kept",
    "normal": "what has nothing to do with it",
    "neighbour": "facts about others",
    "attribute": "other facts of the same subjects",
}
METRICS = {
    "target": "answers with the target",
    "recall": "still answers with what it knew",
    "unchanged": "answers as before",
}
MARKS = {
    ("target", True): "✓ target",
    ("target", False): "✗ not the target",
    ("forgotten", True): "✓ forgotten",
    ("forgotten", False): "✗ still known",
    ("unchanged", True): "✓ unchanged",
    ("unchanged", False): "✗ changed",
}
ASSURANCE = {
    "exact": (
        "The method reaches exactly the state that it promises, by its construction; "
        "its limits are listed below."
    ),
    "certified": (
        "A mathematical bound says how far the result can be from the ideal one, "
        "under the conditions of the method's paper."
    ),
    "approximate": (
        "The method aims at the change, and the scores show how far it got. Nothing proves that "
        "the old answer cannot come back in other words, in other contexts or after more training."
    ),
    "guardrail": (
        "The knowledge is still in the weights. What changed is what the model says when asked."
    ),
}
UNLEARNED = {
    "exact": "What was to be forgotten has no part in the weights, if the method's premises hold.",
    "certified": "The bound above is all that is proved: it is no proof of deletion by itself.",
    "approximate": (
        "Approximate unlearning suppresses: it makes the answers unlikely, and is no proof of "
        "deletion."
    ),
    "guardrail": "Nothing was deleted: a guardrail suppresses what the weights still know.",
}
"""What forgetting by a method of each assurance amounts to."""
ELSEWHERE = (
    "Other copies and descendants of the base, caches, logs and documents that a system retrieves "
    "from still hold what was to be forgotten here."
)
NOT_MEASURED = (
    "How far it is forgotten was measured by the probes of this edit alone. No model retrained "
    "without the forgotten data (an oracle) was compared with, and no gate was set: what such a "
    "model would answer is not known."
)
REFERENCE = {"ticket": "request", "ground": "legal ground", "requester": "asked for by"}


@dataclass(frozen=True)
class Compute:
    """The work of a change: tokens trained on, tokens read besides, operations of both."""

    trained: int
    read: int
    flops: float


@dataclass(frozen=True)
class Score:
    """One line of a table of scores."""

    group: str
    measure: str
    before: str
    after: str
    n: int
    interval: str
    """The 95 % confidence interval of the share after."""


def asked(request: RequestRecord) -> tuple[str, ...]:
    """What was asked, one item each, at most `SHOWN`; none of an undisclosed request."""
    return request.in_words[:SHOWN] if request.disclosed else ()


def task(manifest: Manifest) -> str:
    """The request by its size: `16 facts to change`; rows that are to be kept do not count."""
    noun, nouns = _NOUNS.get(manifest.request.type, ("row", "rows"))
    count = manifest.request.parts.get("forget", manifest.request.count)
    return f"{counted(count, noun, nouns)} to {_TASKS[manifest.method.kind]}"


def headline(manifest: Manifest) -> str:
    """The edit in one line: its only fact in words, else its size."""
    words = asked(manifest.request)
    if len(words) == 1 and manifest.request.count == 1:
        return words[0]
    return task(manifest)


def base_name(base: BaseRecord) -> str:
    """The base by its repository, or by the name of its directory."""
    return base.repo or PurePath(base.directory or "a local directory").name


def facts(manifest: Manifest) -> str:
    """The size of the change on one line."""
    tensors = manifest.tensors
    changed = sum(tensor.elements_changed for tensor in tensors)
    norms = [tensor.relative_norm for tensor in tensors if tensor.relative_norm is not None]
    ranks = sorted({tensor.rank for tensor in tensors if tensor.rank is not None})
    parts = []
    if tensors or not manifest.files:
        parts += [
            f"{len(tensors):,} of {counted(manifest.base.tensors, 'tensor')}",
            f"{percent(changed / manifest.base.parameters)} of all elements"
            if 0 < changed <= manifest.base.parameters
            else f"{changed:,} elements",
        ]
    if manifest.files:
        parts.append("writes " + ", ".join(file.path for file in manifest.files))
    if norms:
        parts.append(f"relative norm {'up to ' if len(norms) > 1 else ''}{figure(max(norms))}")
    if ranks:
        parts.append(f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else ""))
    parts.append(f"delta {nbytes(manifest.delta.nbytes)}")
    return " · ".join(parts)


def score_table(scores: Sequence[ScoreRecord]) -> list[Score]:
    """The scores in words; a share that stands for whole probes says how many."""
    return [
        Score(
            group=f"{score.group}: {GROUPS[score.group]}" if score.group in GROUPS else score.group,
            measure=METRICS.get(score.metric, score.metric),
            before=percent(score.before),
            after=_share(score.after, score.n),
            n=score.n,
            interval=_interval(score),
        )
        for score in scores
    ]


def _interval(score: ScoreRecord) -> str:
    found = wilson(score.after, score.n)
    return "–" if found is None else f"{percent(found[0])} to {percent(found[1])}"


def wilson(share: float, n: int, z: float = Z) -> tuple[float, float] | None:
    """The confidence interval of a share of `n` trials, of 95 % by default; None of no trials.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1 or not 0 <= share <= 1:
        return None
    whole = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / whole
    half = z / whole * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if share == 0 else middle - half
    return max(0.0, low), 1.0 if share == 1 else min(1.0, middle + half)


def outcome(scores: Sequence[ScoreRecord]) -> str:
    """The scores after the edit, on one line."""
    return " · ".join(
        f"{score.group} {_share(score.after, score.n)}"
        + (" unchanged" if score.metric == "unchanged" else "")
        for score in scores
    )


def reference(manifest: Manifest) -> list[tuple[str, str]]:
    """Where the request comes from, by what was given of it."""
    given = manifest.reference
    named = {} if given is None else given.model_dump(exclude_none=True)
    return [(label, named[key]) for key, label in REFERENCE.items() if key in named]


def compute(manifest: Manifest) -> Compute | None:
    """The estimated work of a change, where its method counted tokens.

    Six floating-point operations for each parameter and token trained on, two for each token read
    (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
    """
    counted = manifest.record.get("compute")
    if not isinstance(counted, Mapping):
        return None
    trained, read = (counted.get(key, 0) for key in ("tokens_trained", "tokens_read"))
    if not all(isinstance(count, int) and count >= 0 for count in (trained, read)):
        return None
    return Compute(trained, read, (6 * trained + 2 * read) * manifest.base.parameters)


def replayed(manifest: Manifest) -> str | None:
    """What to know of an edit that lies on another start than it was made on, or None."""
    made = manifest.replayed
    if made is None:
        return None
    sentence = f"It was made as {made.edit}, on another start, and put here from its records."
    if made.tensors:
        sentence += (
            f" Its updates were added to other bits of {', '.join(made.tensors[:3])}"
            + (f" and {len(made.tensors) - 3} more" if len(made.tensors) > 3 else "")
            + ", which the method never saw."
        )
    asked = "were asked again here" if made.asked else "were not asked again"
    return f"{sentence} Its questions {asked}."


def overruled(manifest: Manifest) -> tuple[str, ...]:
    """The guards that were overruled; by their number alone if the request is undisclosed."""
    reasons = manifest.overruled
    if manifest.request.disclosed or not reasons:
        return reasons
    return (f"{counted(len(reasons), 'guard')}, whose words could quote the undisclosed request",)


def undisclosed(manifest: Manifest) -> str:
    """What stands in place of a request that is not disclosed."""
    return (
        f"The request is not disclosed: {task(manifest)}. Its prompts, its answers and what the "
        "method recorded about them are not shown here."
    )


def probe_measure(group: str) -> str:
    """What a probe of that group should do: give the `target`, be `forgotten` or `unchanged`."""
    if group in {"rewrite", "paraphrase"}:
        return "target"
    return "forgotten" if group == "forget" else "unchanged"


def mark(group: str, passed: bool | None) -> str:
    """The verdict on one probe."""
    return "–" if passed is None else MARKS[probe_measure(group), passed]


def _share(share: float, n: int) -> str:
    whole = round(share * n)
    if n and abs(share - whole / n) < 1e-5:
        return f"{percent(whole / n)} ({whole:,} of {n:,})"
    return percent(share)


def unlearned(manifest: Manifest) -> str:
    """What forgetting by the method amounts to, and what it does not reach."""
    return f"{UNLEARNED[manifest.method.assurance]} {ELSEWHERE}"


def forgotten(manifest: Manifest) -> dict[str, object]:
    """What the template of forgetting is filled with; `forgets` says whether it is shown."""
    found = manifest.forgetting
    return {
        "forgets": manifest.method.kind == "unlearn",
        "suppressed": unlearned(manifest),
        "not_measured": NOT_MEASURED,
        "reference": reference(manifest),
        "compute": compute(manifest),
        "forgetting": found,
        "measure_rows": measure_rows(found) if found else [],
        "made_of_lines": made_of_lines(found) if found else [],
        "curve_heads": curve_heads(found) if found else (),
        "curve_rows": curve_rows(found) if found and found.curves else [],
        "gate_lines": gate_lines(found) if found else [],
    }
