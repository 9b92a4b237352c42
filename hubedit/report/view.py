"""What the report shows, prepared: every figure and sentence, with nothing left to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hubedit import words
from hubedit.diff import PROBES_SHOWN, TENSORS_SHOWN, digest_lines
from hubedit.heatmap import heat_grid
from hubedit.manifest import Manifest, ScoreRecord, TensorRecord, TranscriptRecord
from hubedit.markdown import percent, shorten
from hubedit.probes import Probe
from hubedit.report.figures import (
    Heat,
    Mark,
    MatrixView,
    Spectrum,
    bars,
    heat,
    matrix_view,
    spectrum,
    word_differences,
)
from hubedit.updates import LowRank, Update

PROBES = 25 * PROBES_SHOWN
"""Probes on the page; all are in probes.jsonl."""
TENSORS = 5 * TENSORS_SHOWN
SPECTRA = 12
LONGEST = 4000
"""Characters of one text on the page."""
TRANSCRIPTS = 40

Tone = Literal["good", "mixed", "bad", "none"]
Pieces = Sequence[tuple[Mark, str]]


@dataclass(frozen=True)
class Verdict:
    """The outcome that the page opens with."""

    tone: Tone
    headline: str
    said: str = ""
    lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Titles and sentences that explain it."""
    quiet: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The same, folded."""


@dataclass(frozen=True)
class ScoreLine:
    """One share before and after, each with its interval in words and in percent of a bar."""

    group: str
    measure: str
    before: str
    after: str
    n: int
    interval: str
    at: float
    low: float
    high: float
    was: float | None


@dataclass(frozen=True)
class ProbeLine:
    """One question before and after."""

    group: str
    mark: str
    passed: bool
    changed: bool
    regressed: bool
    prompt: str
    target: str
    before: str
    after: str
    followed: str
    """Whose probability is shown."""
    chance_before: str
    chance_after: str
    share_before: float
    share_after: float
    again: str
    """What a review found when it asked again; empty where it did not."""


@dataclass(frozen=True)
class TranscriptView:
    """A prompt, and what was written after it."""

    prompt: str
    before: Pieces
    after: Pieces
    same: bool


@dataclass(frozen=True)
class SpectrumView:
    """The singular values of one tensor's update."""

    tensor: str
    found: Spectrum
    heights: tuple[float, ...]


@dataclass(frozen=True)
class EditView:
    """One edit, whole."""

    manifest: Manifest
    folder: str
    side: str
    """`A` or `B` where two models are compared, or empty."""
    headline: str
    base: str
    facts: str
    outcome: str
    forced: tuple[str, ...]
    asked: tuple[str, ...]
    asked_left: int
    task: str
    undisclosed: str
    scores: tuple[ScoreLine, ...]
    probes: tuple[ProbeLine, ...]
    probes_left: int
    counts: Mapping[str, int]
    transcripts: tuple[TranscriptView, ...]
    tensors: tuple[TensorRecord, ...]
    heat: Heat
    spectra: tuple[SpectrumView, ...]
    matrices: tuple[MatrixView, ...]
    """What the method shows, of a disclosed request."""
    untouched: int
    assurance: str
    unlearned: str
    digests: tuple[tuple[str, str, str], ...]
    made: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class DifferenceView:
    """What differs between two models, tensor by tensor."""

    a: str
    b: str
    bases: tuple[str, ...]
    common: tuple[str, ...]
    only_a: tuple[tuple[str, str], ...]
    only_b: tuple[tuple[str, str], ...]
    summary: str
    tensors: tuple[tuple[str, ...], ...]
    tensors_left: int
    files: tuple[str, ...]
    heat: Heat


@dataclass(frozen=True)
class Report:
    """A page: its title and verdict, and what there is to show."""

    title: str
    verdict: Verdict
    subject: str = ""
    commit: str = ""
    result: str = ""
    difference: DifferenceView | None = None
    edits: tuple[EditView, ...] = ()
    own: tuple[ProbeLine, ...] = ()
    caution: str = ""
    """Why what the edits say is not to be trusted, if so."""
    commands: tuple[str, ...] = ()
    """How to check the digests by hand."""


def edit_view(
    manifest: Manifest,
    folder: str,
    recorded: Sequence[Probe],
    updates: Mapping[str, Update],
    *,
    side: str = "",
    again: Sequence[str] = (),
) -> EditView:
    """Prepare one edit.

    Args:
        manifest: of the edit.
        folder: where it lies in its repository.
        recorded: its probes.
        updates: those of its delta, as far as they could be read.
        side: `A` or `B` where two models are compared.
        again: of each probe, what a review found when it asked again.
    """
    request = manifest.request
    lines = probe_lines(recorded if request.disclosed else (), again)
    asked = words.asked(request)
    known = manifest.environment.model_dump()
    settings = [(f"setting {key}", value) for key, value in sorted(manifest.config.items())]
    figures = sorted(manifest.record.items()) if request.disclosed else []
    return EditView(
        manifest=manifest,
        folder=folder,
        side=side,
        headline=words.headline(manifest),
        base=manifest.base.title,
        facts=words.facts(manifest),
        outcome=words.outcome(manifest.scores),
        forced=words.overruled(manifest),
        asked=tuple(asked),
        asked_left=request.count - len(asked) if asked else 0,
        task=words.task(manifest),
        undisclosed="" if request.disclosed else words.undisclosed(manifest),
        scores=tuple(_score(score) for score in manifest.scores),
        probes=lines[:PROBES],
        probes_left=max(len(lines) - PROBES, 0),
        counts=_counts(lines[:PROBES]),
        transcripts=tuple(
            _transcript(transcript)
            for transcript in (manifest.transcripts[:TRANSCRIPTS] if request.disclosed else ())
        ),
        tensors=manifest.tensors[:TENSORS],
        heat=heat(heat_grid(manifest, manifest.base.layers)),
        spectra=tuple(_spectra(updates)),
        matrices=tuple(map(matrix_view, manifest.figures if request.disclosed else ())),
        untouched=max(
            manifest.base.tensors - sum(t.before is not None for t in manifest.tensors), 0
        ),
        assurance=words.ASSURANCE[manifest.method.assurance],
        unlearned=words.unlearned(manifest) if manifest.method.kind == "unlearn" else "",
        digests=tuple(digest_lines(manifest)),
        made=(
            ("method", f"{manifest.method.name}: {manifest.method.summary}"),
            ("source", manifest.method.paper or "–"),
            ("plugin", f"{manifest.plugin.distribution} {manifest.plugin.version}"),
            ("seed", manifest.seed),
            *settings,
            *((f"recorded {key}", value) for key, value in figures),
            *sorted(known.items()),
        ),
    )


def probe_lines(probes: Sequence[Probe], again: Sequence[str] = ()) -> tuple[ProbeLine, ...]:
    """Probes as lines of a table: those that failed first, else in their order."""
    said = [*again, *[""] * (len(probes) - len(again))]
    lines = [_probe(probe, found) for probe, found in zip(probes, said, strict=True)]
    return tuple(sorted(lines, key=lambda line: line.passed))


def _probe(probe: Probe, again: str) -> ProbeLine:
    before, after = probe.before, probe.after
    kept = words.probe_measure(probe.group) == "unchanged"
    old, new = (
        (answer.p_answer if kept else answer.p_target) for answer in (probe.before, probe.after)
    )
    wanted = kept or before.answer == probe.target
    if probe.group == "forget":
        wanted = before.answer != probe.target
    return ProbeLine(
        group=probe.group,
        mark=words.mark(probe.group, probe.passed),
        passed=probe.passed,
        changed=before.answer != after.answer,
        regressed=wanted and not probe.passed,
        prompt=shorten(probe.prompt or "–", LONGEST),
        target=shorten((probe.target or "").strip() or "–", LONGEST),
        before=shorten((before.answer or "").strip() or "–", LONGEST),
        after=shorten((after.answer or "").strip() or "–", LONGEST),
        followed="the answer" if kept else "the target",
        chance_before=percent(old),
        chance_after=percent(new),
        share_before=round(100 * min(max(old or 0.0, 0.0), 1.0), 1),
        share_after=round(100 * min(max(new or 0.0, 0.0), 1.0), 1),
        again=again,
    )


def _counts(lines: Sequence[ProbeLine]) -> dict[str, int]:
    changed = sum(line.changed for line in lines)
    return {
        "all": len(lines),
        "changed": changed,
        "unchanged": len(lines) - changed,
        "regressed": sum(line.regressed for line in lines),
    }


def _score(score: ScoreRecord) -> ScoreLine:
    (line,) = words.score_table([score])
    low, high = words.wilson(score.after, score.n) or (0.0, 1.0)
    return ScoreLine(
        group=line.group,
        measure=line.measure,
        before=line.before,
        after=line.after,
        n=score.n,
        interval=line.interval,
        at=round(100 * min(max(score.after, 0.0), 1.0), 1),
        low=round(100 * low, 1),
        high=round(100 * high, 1),
        was=None if score.before is None else round(100 * min(max(score.before, 0.0), 1.0), 1),
    )


def _transcript(transcript: TranscriptRecord) -> TranscriptView:
    old, new = (shorten(text.strip(), LONGEST) for text in (transcript.before, transcript.after))
    before, after = word_differences(old, new)
    return TranscriptView(shorten(transcript.prompt, LONGEST), before, after, old == new)


def _spectra(updates: Mapping[str, Update]) -> list[SpectrumView]:
    found = []
    for name, update in updates.items():
        values = spectrum(update.left, update.right) if isinstance(update, LowRank) else None
        if values is not None:
            found.append(SpectrumView(name, values, bars(values.values)))
        if len(found) == SPECTRA:
            break
    return found
