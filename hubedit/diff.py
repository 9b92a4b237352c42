"""The review page of one edit, DIFF.md, and the same for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubedit import words
from hubedit.heatmap import heat_grid, heat_text, write_heatmap
from hubedit.manifest import Manifest, TranscriptRecord
from hubedit.maps import map_path, map_text
from hubedit.markdown import changed, figure, nbytes, percent, render, shorten, visible
from hubedit.matrices import MapRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

PROBES_SHOWN = 40
"""Probes of each group on the page; all are in probes.jsonl."""
TENSORS_SHOWN = 40
"""Tensors on the page; all are in manifest.json."""
DIGESTS_SHOWN = 8
"""Tensors whose digests are on the page if there are no more than that."""
REASONS_SHOWN = 8
_WIDTH = 96
_SHADES = {"✓": "green", "✗": "red", "–": "dim"}


def render_diff(
    manifest: Manifest,
    probes: Sequence[Mapping[str, Any]],
    *,
    layers: int | None = None,
    picture: str | None = "heatmap.png",
) -> str:
    """Write DIFF.md for one edit; the same input gives the same text.

    Args:
        manifest: of the edit.
        probes: as in probes.jsonl, in its order.
        layers: the number of blocks of the model; as many as the edit reaches if None.
        picture: the relative path of what `write_heatmap` drew, or None to leave it out.
    """
    shown = probes if manifest.request.disclosed else ()
    return render(
        "diff.md",
        m=manifest,
        headline=words.headline(manifest),
        base=words.base_name(manifest.base),
        kind={"edit": "edited", "unlearn": "unlearned"}[manifest.method.kind],
        facts=words.facts(manifest),
        outcome=words.outcome(manifest.scores),
        forced=words.overruled(manifest),
        replayed=words.replayed(manifest),
        asked=words.asked(manifest.request),
        task=words.task(manifest),
        undisclosed=words.undisclosed(manifest),
        scores=words.score_table(manifest.scores),
        groups=list(_groups(shown)),
        transcripts=[
            {"prompt": transcript.prompt, "lines": _diff_lines(transcript)}
            for transcript in (manifest.transcripts if manifest.request.disclosed else ())
        ],
        tensors=manifest.tensors[:TENSORS_SHOWN],
        reasons=_reasons(manifest),
        untouched=max(
            manifest.base.tensors - sum(t.before is not None for t in manifest.tensors), 0
        ),
        picture=picture,
        heat=heat_text(heat_grid(manifest, layers)),
        assurance=words.ASSURANCE[manifest.method.assurance],
        **words.forgotten(manifest),
        figures=[
            {"caption": one.caption, "path": map_path(one), "text": map_text(one)}
            for one in _figures(manifest)
        ],
        recorded=manifest.record if manifest.request.disclosed else {},
        environment=sorted(manifest.environment.model_dump().items()),
        digests=digest_lines(manifest),
        digested=manifest.tensors if len(manifest.tensors) <= DIGESTS_SHOWN else (),
    )


def print_edit(
    manifest: Manifest,
    probes: Sequence[Mapping[str, Any]],
    console: Console,
    *,
    layers: int | None = None,
) -> None:
    """Show one edit on a terminal; without one, the same as plain text.

    Args:
        manifest: of the edit.
        probes: as in probes.jsonl.
        console: a `rich.console.Console`, which knows whether it may use colour.
        layers: the number of blocks of the model; as many as the edit reaches if None.
    """
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(f"Edit {manifest.height}: {visible(words.headline(manifest))}", "bold")
    method = f"{manifest.method.name}, {manifest.method.assurance}"
    say(f"{visible(manifest.base.title)} · {visible(method)}")
    say(words.facts(manifest), "dim")
    for reason in words.overruled(manifest):
        say(f"⚠ forced: {visible(reason)}", "bold red")
    if not manifest.request.disclosed:
        say(visible(words.undisclosed(manifest)), "yellow")
    if manifest.request.disclosed and manifest.request.count > 1:
        for item in words.asked(manifest.request):
            say(f"  {visible(item)}")
        if manifest.request.count > words.SHOWN:
            say(f"  … {manifest.request.count - words.SHOWN} more in manifest.json", "dim")
    if manifest.scores:
        console.print(_score_view(manifest))
    for group in _groups(probes if manifest.request.disclosed else ()):
        console.print(_probe_view(group))
    console.print(_tensor_view(manifest))
    say(heat_text(heat_grid(manifest, layers)))
    for one in _figures(manifest):
        say(visible(one.caption))
        say(visible(map_text(one), keep="\n"))
    say("Not tested: " + visible("; ".join(manifest.not_tested) or "nothing is named"), "yellow")
    for label, digest, meaning in digest_lines(manifest):
        say(f"{label:<8} {visible(digest)}  {visible(meaning)}", "dim")


def _figures(manifest: Manifest) -> Sequence[MapRecord]:
    """What the method shows; nothing of an undisclosed request."""
    return manifest.figures if manifest.request.disclosed else ()


def _groups(probes: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The probes by group, those that failed first, cut to what a page shows."""
    present = {str(probe["group"]) for probe in probes}
    known = [group for group in words.GROUPS if group in present]
    for group in [*known, *sorted(present - set(known))]:
        members = [probe for probe in probes if probe["group"] == group]
        members.sort(key=lambda probe: probe.get("passed") is not False)
        judged = [probe for probe in members if probe.get("passed") is not None]
        passed = sum(bool(probe["passed"]) for probe in judged)
        measure = words.probe_measure(group)
        verdict = "as asked" if measure == "target" else measure
        yield {
            "title": f"{group.capitalize()}: {passed:,} of {len(judged):,} {verdict}",
            "follows": measure in ("target", "forgotten"),
            "probes": [_seen(group, probe) for probe in members[:PROBES_SHOWN]],
            "left": max(len(members) - PROBES_SHOWN, 0),
        }


def _seen(group: str, probe: Mapping[str, Any]) -> dict[str, str]:
    """One probe as the cells of a table."""
    before, after = probe["before"], probe["after"]
    kept = words.probe_measure(group) == "unchanged"
    followed = "p_answer" if kept else "p_target"
    return {
        "mark": words.mark(group, probe.get("passed")),
        "prompt": str(probe["prompt"]),
        "target": str(probe.get("target") or "").strip(),
        "before": str(before["answer"]).strip(),
        "after": str(after["answer"]).strip(),
        "chance": f"{percent(before.get(followed))} → {percent(after.get(followed))}",
    }


def _diff_lines(transcript: TranscriptRecord) -> list[str]:
    """A transcript as the lines of a diff, each with its sign, so that none can end the block."""
    if transcript.before == transcript.after:
        return [f"  {line}" for line in _wrapped(transcript.before)]
    removed = [f"- {line}" for line in _wrapped(transcript.before)]
    return removed + [f"+ {line}" for line in _wrapped(transcript.after)]


def _wrapped(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").strip("\n").split("\n"):
        wrapped = textwrap.wrap(visible(line).strip(" "), _WIDTH, break_on_hyphens=False)
        lines += wrapped or ["(nothing)" if not text.strip() else ""]
    return lines


def _reasons(manifest: Manifest) -> list[tuple[str, str, int]]:
    """Each way in which tensors are stored, why, and how many of them."""
    counts = Counter((tensor.kind, tensor.reason) for tensor in manifest.tensors)
    return [
        (kind, reason, count) for (kind, reason), count in sorted(counts.items())[:REASONS_SHOWN]
    ]


def digest_lines(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Label, digest and meaning of everything that identifies the edit."""
    plugin = f"installed files of {manifest.plugin.distribution} {manifest.plugin.version}"
    return [
        ("base", manifest.base.digest, f"list of the base's files ({manifest.base.title})"),
        ("parent", manifest.parent, "the model this edit started from"),
        ("result", manifest.result, "the model it made"),
        ("delta", manifest.delta.sha256, f"{manifest.delta.file}, {manifest.delta.nbytes:,} bytes"),
        ("request", manifest.request.sha256, words.task(manifest)),
        ("plugin", manifest.plugin.sha256, plugin),
    ]


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _text(value: str, limit: int = 100, style: str = "") -> Text:
    from rich.text import Text

    return Text(shorten(visible(value), limit), style=style)


def _score_view(manifest: Manifest) -> Table:
    table = _table("probes", "share that", "before", "after", "n", right=("before", "n"))
    for score in words.score_table(manifest.scores):
        line = (score.group, score.measure, score.before, score.after, str(score.n))
        table.add_row(*(_text(value) for value in line))
    return table


def _probe_view(group: Mapping[str, Any]) -> Table:
    table = _table(group["title"], "prompt", "before", "after", "p")
    for probe in group["probes"]:
        table.add_row(
            _text(probe["mark"], style=_SHADES[probe["mark"][0]]),
            _text(probe["prompt"]),
            _text(probe["before"], 40),
            _text(probe["after"], 40),
            _text(probe["chance"]),
        )
    if group["left"]:
        table.caption = f"… {group['left']} more in probes.jsonl"
    return table


def _tensor_view(manifest: Manifest) -> Table:
    names = ("tensor", "shape", "stored as", "rank", "changed", "‖ΔW‖/‖W‖", "size")
    table = _table(*names, right=names[3:])
    for tensor in manifest.tensors[:TENSORS_SHOWN]:
        table.add_row(
            _text(" = ".join([tensor.name, *tensor.aliases])),
            _text(f"{' × '.join(map(str, tensor.shape))} {tensor.dtype}"),
            _text(tensor.kind),
            _text("–" if tensor.rank is None else str(tensor.rank)),
            _text(changed(tensor)),
            _text(figure(tensor.relative_norm)),
            _text(nbytes(tensor.nbytes)),
        )
    if len(manifest.tensors) > TENSORS_SHOWN:
        table.caption = f"… {len(manifest.tensors) - TENSORS_SHOWN} more in manifest.json"
    return table


__all__ = ["digest_lines", "print_edit", "render_diff", "write_heatmap"]
