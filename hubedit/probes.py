"""Questions asked of a model before and after an edit, and the scores they give."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hubedit.errors import ManifestError
from hubedit.manifest import Record, ScoreRecord, TranscriptRecord
from hubedit.requests import of_row
from hubedit.rows import FactEdit, Group, Question, Row, continued

if TYPE_CHECKING:
    from hubedit.reading import Reader

FOLLOWS: frozenset[str] = frozenset({"rewrite", "paraphrase"})
"""Groups that should give the target after an edit."""
KNOWN: frozenset[str] = frozenset({"forget", "retain", "normal"})
"""Groups whose target is what the model said before."""
GROUPS: tuple[Group, ...] = (
    "rewrite",
    "paraphrase",
    "forget",
    "retain",
    "normal",
    "neighbour",
    "attribute",
)


TOKENS_WRITTEN = 12
"""How many tokens of a transcript are written."""


class Answer(Record):
    """What the model says: its greedy answer and probabilities, each rounded to six digits.

    `p_answer` and `p_target` are the probabilities of all tokens of the answer and of the target.
    """

    answer: str | None
    p_answer: float | None
    p_target: float | None = None


class Probe(Record):
    """One question, before and after; `passed` says whether the edit did there what it should.

    In an undisclosed edit `prompt`, `target` and the answers are None.
    """

    row: int
    group: Group
    prompt: str | None
    target: str | None = None
    before: Answer
    after: Answer
    passed: bool


class Scored(Protocol):
    """Teacher-forced scores of one continuation."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    top_ids: Sequence[int]


class Asked(Protocol):
    """The part of a loaded model that probes use."""

    def target_logprobs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Scored]:
        """Log-probabilities of the tokens of each continuation after its prompt."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> Sequence[str]:
        """Greedy continuations."""


def questions(rows: Sequence[Row]) -> list[Question]:
    """Every prompt that the rows name: what should change, and what should not."""
    numbered = enumerate(rows, start=1)
    return [question for number, row in numbered for question in row.questions(number)]


def check_readable(model: Reader, asked: Sequence[Question]) -> None:
    """Refuse questions that a model cannot read, before any is put to it.

    Raises:
        RequestError: names the row of the first.
    """
    for question in asked:
        with of_row(question.row):
            model.next_reading(question.prompt)
            answer = _spaced(question)
            if answer is not None:
                model.scored(question.prompt, answer)


def ask(model: Asked, asked: Sequence[Question]) -> list[Answer]:
    """Put the questions to a model; answers come in the same order."""
    if not asked:
        return []
    continuations = [_spaced(question) for question in asked]
    known = [index for index, text in enumerate(continuations) if text is not None]
    scored = model.target_logprobs([(asked[i].prompt, continuations[i] or "") for i in known])
    target_scores = dict(zip(known, scored, strict=True))
    lengths = [
        len(target_scores[i].token_ids) if i in target_scores else 1 for i in range(len(asked))
    ]
    texts = [""] * len(asked)
    for length in sorted(set(lengths)):
        members = [i for i in range(len(asked)) if lengths[i] == length]
        for i, text in zip(
            members, model.generate([asked[i].prompt for i in members], length), strict=True
        ):
            texts[i] = text
    answered = [index for index, text in enumerate(texts) if text.strip()]
    answer_scores = dict(
        zip(
            answered,
            model.target_logprobs([(asked[i].prompt, texts[i]) for i in answered]),
            strict=True,
        )
    )
    return [
        Answer(
            answer=texts[i].strip(),
            p_answer=_probability(answer_scores.get(i)) or 0.0,
            p_target=_probability(target_scores.get(i)),
        )
        for i in range(len(asked))
    ]


def _spaced(question: Question) -> str | None:
    return None if question.target is None else continued(question.prompt, question.target)


def _probability(score: Scored | None) -> float | None:
    return None if score is None else round(math.exp(sum(score.logprobs)), 6)


def pair(
    asked: Sequence[Question], before: Sequence[Answer], after: Sequence[Answer]
) -> list[Probe]:
    """Put the answers before and after side by side and judge each."""
    return [
        Probe(**question.model_dump(), before=old, after=new, passed=_passed(question, old, new))
        for question, old, new in zip(asked, before, after, strict=True)
    ]


def _passed(question: Question, before: Answer, after: Answer) -> bool:
    if question.group in FOLLOWS:
        return question.target is not None and after.answer == question.target
    if question.group == "forget":
        return after.answer != question.target
    return after.answer == before.answer


def scores(probes: Sequence[Probe]) -> tuple[ScoreRecord, ...]:
    """By group, the share of probes that did what they should, or that still give the answer."""
    found = []
    for group in GROUPS:
        members = [probe for probe in probes if probe.group == group]
        if not members:
            continue
        if group in FOLLOWS:
            found.append(_answers(group, "target", members))
        elif group in KNOWN:
            found.append(_answers(group, "recall", members))
        if group not in FOLLOWS | {"forget"}:
            share = sum(probe.passed for probe in members) / len(members)
            found.append(
                ScoreRecord(
                    group=group,
                    metric="unchanged",
                    before=None,
                    after=round(share, 6),
                    n=len(members),
                )
            )
    return tuple(found)


def _answers(group: str, metric: str, members: Sequence[Probe]) -> ScoreRecord:
    """The share of answers that are the target, before and after."""
    shares = [
        sum(answer.answer == probe.target for probe, answer in pairs) / len(members)
        for pairs in (
            [(probe, probe.before) for probe in members],
            [(probe, probe.after) for probe in members],
        )
    ]
    before, after = (round(share, 6) for share in shares)
    return ScoreRecord(group=group, metric=metric, before=before, after=after, n=len(members))


def transcripts(
    asked: Sequence[Question], before: Sequence[str], after: Sequence[str]
) -> tuple[TranscriptRecord, ...]:
    """Greedy continuations before and after."""
    return tuple(
        TranscriptRecord(prompt=question.prompt, before=old, after=new)
        for question, old, new in zip(asked, before, after, strict=True)
    )


def for_transcripts(asked: Sequence[Question], each: int = 2) -> list[Question]:
    """The first questions of each group: enough to read, not to score."""
    chosen: list[Question] = []
    for group in GROUPS:
        chosen += [question for question in asked if question.group == group][:each]
    return chosen


_OF_FACTS: Mapping[Group, str] = {
    "paraphrase": "other wordings of the changed facts (the request names no paraphrases)",
    "neighbour": "other subjects (the request names no neighbours)",
    "attribute": "other facts of the same subjects (the request names no attributes)",
}
_OF_FORGETTING: Mapping[Group, str] = {
    "forget": "whether the model still answers what it was to forget (no row asks a question)",
}
_OF_KEEPING: Mapping[Group, str] = {
    "retain": "whether the model keeps what it was to keep (no retain row asks a question)",
}


COMES_BACK = "whether it comes back by other prompts, more training or quantisation"
OTHERWISE = "whether it comes back in other ways than the treatments shown"
NO_ORACLE = "a model retrained without the forgotten texts (none was given)"
"""What probes cannot tell of forgetting, and what a measurement leaves open of it."""


def not_tested(rows: Sequence[Row], probes: Iterable[Probe]) -> tuple[str, ...]:
    """Say in plain words which questions nobody asked.

    Facts of any plugin's own type are held to what facts are: other wordings, other subjects and
    other facts of the same ones, also where they are to go. Other rows that are to go are held to
    what is to be kept.
    """
    groups = _asked(probes)
    forgetting = any(row.part_name == "forget" for row in rows)
    missing: dict[Group, str] = {}
    if forgetting:
        missing |= _OF_FORGETTING
    if any(isinstance(row, FactEdit) for row in rows):
        missing |= _OF_FACTS
    if forgetting and not all(isinstance(row, FactEdit) for row in rows):
        missing |= _OF_KEEPING
    sentences = [text for group, text in missing.items() if group not in groups]
    if forgetting:
        sentences += [COMES_BACK, NO_ORACLE]
    sentences.append("general abilities of the model (no benchmark was run)")
    return tuple(sentences)


def _asked(probes: Iterable[Probe]) -> set[Group]:
    """The groups that were asked; two questions that a row is to forget are two wordings."""
    counts = Counter((probe.row, probe.group) for probe in probes)
    groups = {group for _, group in counts}
    if any(group == "forget" and count > 1 for (_, group), count in counts.items()):
        groups.add("paraphrase")
    return groups


def to_jsonl(probes: Iterable[Probe]) -> str:
    """One probe a line, in canonical JSON."""
    return "".join(
        json.dumps(
            probe.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
        + "\n"
        for probe in probes
    )


def from_jsonl(text: str) -> list[Probe]:
    """Read probes back.

    Raises:
        ManifestError: a line is damaged.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            value: Mapping[str, Any] = json.loads(line)
            found.append(Probe.model_validate(value))
        except ValueError as error:
            raise ManifestError(f"line {number} of probes.jsonl is damaged") from error
    return found
