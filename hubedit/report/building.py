"""Where a report comes from: a review, a comparison, or the files of a revision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hubedit import probes
from hubedit.delta import Delta
from hubedit.errors import HubEditError, ManifestError
from hubedit.heatmap import grid_of, place_of
from hubedit.manifest import STACK_FILE, Manifest, Stack, StackEntry
from hubedit.markdown import counted, percent
from hubedit.probes import Probe
from hubedit.report.figures import heat
from hubedit.report.view import (
    TENSORS,
    DifferenceView,
    EditView,
    Report,
    Tone,
    Verdict,
    edit_view,
    probe_lines,
)
from hubedit.updates import Update

if TYPE_CHECKING:
    from hubedit.comparison import Comparison, Side
    from hubedit.editions import Edition
    from hubedit.verdicts import Review

Read = Callable[[str], bytes | None]
"""The content of one file of a revision by its path.

None if there is no such file; of a delta that is too large to be looked at, too: its spectrum is
left out then.
"""

_TONES: Mapping[str, Tone] = {
    "verified": "good",
    "against the policy": "bad",
    "not verified": "bad",
}
_SAID = {
    "verified": (
        "The bytes are those that the records say, and the recorded questions are answered as "
        "they say."
    ),
    "bytes verified, behaviour not checked": (
        "The bytes are those that the records say. What the model answers was not checked, or not "
        "all of it."
    ),
    "verified with differences": (
        "The bytes are those that the records say; the following came out otherwise than recorded."
    ),
    "against the policy": (
        "The bytes are those that the records say; the policy of this review does not allow the "
        "edit."
    ),
    "not verified": "Do not merge: the following is not as the records say.",
}
_CAUTION = "What follows is what the records claim. It is not verified."


def of_review(review: Review) -> Report:
    """The report of a review, with the newest edit of what it reviewed."""
    edition, broken = review.proposed, bool(review.broken)
    edits: tuple[EditView, ...] = ()
    gone = "".join(f" It takes back {one.name}: {one.summary}." for one in review.taken_back)
    if edition is not None and edition.stack.edits and not gone:
        again = [
            "as recorded" if _agree(old, new) else "differs"
            for old, new in zip(_probes(_reader(edition), edition), review.again, strict=False)
        ]
        found = _newest(edition.stack, _reader(edition), again)
        edits = () if found is None else (found,)
    return Report(
        title=f"Review of {review.what}",
        subject=review.what,
        commit=review.commit,
        result=review.result or "",
        verdict=Verdict(
            tone=_TONES.get(review.verdict, "mixed"),
            headline=review.headline,
            said=_SAID[review.headline] + gone,
            lists=tuple(
                (title, tuple(items))
                for title, items in (
                    ("Broken", review.broken),
                    ("Against the policy", review.forbidden),
                    ("Differences", review.differences),
                    ("Not checked", review.unchecked),
                )
                if items
            ),
            quiet=(("Checked", tuple(review.checked)),) if review.checked else (),
        ),
        edits=edits,
        own=probe_lines(review.own),
        caution=_CAUTION if broken else "",
        commands=(
            *_commands(edits, review.repo, f"refs/pr/{review.number}"),
            f"hubedit review {review.repo} --pr {review.number}",
        ),
    )


def of_comparison(found: Comparison) -> Report:
    """The report of a comparison: what differs, and the edits that one side has alone."""
    changed = found.elements_changed
    share = percent(changed / found.elements_total) if found.elements_total else "–"
    count, total = len(found.tensors), counted(found.tensors_total, "tensor")
    edits: list[EditView] = []
    for letter, side, entries in zip("AB", found.sides, (found.only_a, found.only_b), strict=False):
        edits += _edits_of(side, entries, letter)
    return Report(
        title=f"{found.b} against {found.a}",
        verdict=Verdict(
            tone="none",
            headline=f"{count:,} of {total} differ" if count else "No tensor differs",
            said=f"{changed:,} of {found.elements_total:,} elements ({share}), from A to B.",
        ),
        difference=DifferenceView(
            a=found.a,
            b=found.b,
            bases=() if found.same_base else (found.base_a, found.base_b),
            common=tuple(entry.name for entry in found.common),
            only_a=tuple((entry.name, entry.summary) for entry in found.only_a),
            only_b=tuple((entry.name, entry.summary) for entry in found.only_b),
            summary=f"{count:,} of {total}",
            tensors=tuple(item.cells() for item in found.tensors[:TENSORS]),
            tensors_left=max(count - TENSORS, 0),
            files=found.files,
            heat=heat(grid_of(list(_places(found)), _layers(found))),
        ),
        edits=tuple(edits),
    )


def of_files(read: Read, *, repo: str = "", revision: str = "") -> Report | None:
    """The report of the newest edit of a revision as its files record it; nothing is verified.

    Args:
        read: gives the files.
        repo: the repository's name, for the commands that check it.
        revision: such as `refs/pr/1`.

    Returns:
        None where the revision holds no edit that can be read.
    """
    try:
        stack = Stack.from_json(read(STACK_FILE) or b"")
        found = _newest(stack, read, ())
    except HubEditError:
        return None
    if found is None:
        return None
    number = revision.removeprefix("refs/pr/")
    check = f"hubedit review {repo} --pr {number}" if number != revision else ""
    check = check or f"hubedit verify {repo}@{revision}"
    return Report(
        title=f"Edit {found.manifest.height} of {repo}" if repo else found.headline,
        subject=found.headline,
        verdict=Verdict(
            tone="none",
            headline="as recorded, not verified",
            said="This page shows what the records of the edit say. To have them checked from the "
            f"bytes: {check}",
        ),
        edits=(found,),
        result=stack.result,
        commands=(*_commands((found,), repo, revision), check),
    )


def _reader(edition: Edition) -> Read:
    def read(path: str) -> bytes | None:
        return edition.place.read(path) if path in edition.place.files() else None

    return read


def _newest(stack: Stack, read: Read, again: Sequence[str]) -> EditView | None:
    """The newest edit, or None where there is none or its manifest is not the one on record."""
    if not stack.edits:
        return None
    return _view(stack.edits[-1], read, again=again)


def _view(
    entry: StackEntry, read: Read, *, side: str = "", again: Sequence[str] = ()
) -> EditView | None:
    content = read(f"{entry.folder}/manifest.json")
    if content is None or hashlib.sha256(content).hexdigest() != entry.manifest:
        return None
    try:
        manifest = Manifest.from_json(content)
    except ManifestError:
        return None
    lines = _recorded(entry, read)
    return edit_view(
        manifest, entry.folder, lines, _updates(entry, read), side=side, again=again[: len(lines)]
    )


def _probes(read: Read, edition: Edition) -> list[Probe]:
    return _recorded(edition.stack.edits[-1], read)


def _recorded(entry: StackEntry, read: Read) -> list[Probe]:
    try:
        content = read(f"{entry.folder}/probes.jsonl") or b""
        return probes.from_jsonl(content.decode("utf-8"))
    except (ManifestError, UnicodeDecodeError):
        return []


def _updates(entry: StackEntry, read: Read) -> Mapping[str, Update]:
    """The updates of an edit's delta, or none where it is not the file on record."""
    try:
        content = read(f"{entry.folder}/delta.safetensors")
        return {} if content is None else Delta.read_verified(content, entry.delta, entry.folder)
    except HubEditError:
        return {}


def _agree(old: Probe, new: Probe) -> bool:
    from hubedit.reviewing import differences

    return not differences(old, new)


def _edits_of(side: Side, entries: Sequence[StackEntry], letter: str) -> Iterator[EditView]:
    if side.edition is None:
        return
    for entry in entries:
        found = _view(entry, _reader(side.edition), side=letter)
        if found is not None:
            yield found


def _commands(edits: Sequence[EditView], repo: str, revision: str) -> tuple[str, ...]:
    if not edits or not repo or not revision:
        return ()
    path = f"{edits[-1].folder}/delta.safetensors"
    return (
        f"hf download {repo} {path} --revision {revision} --local-dir .",
        f"sha256sum {path}",
        f"hubedit verify {repo}@{revision}",
    )


def _layers(found: Comparison) -> int | None:
    """The number of blocks, where a side's records say it."""
    known = [side.edition.stack.base.layers for side in found.sides if side.edition]
    return max((layers for layers in known if layers is not None), default=None)


def _places(found: Comparison) -> Iterator[tuple[str, int | None, float | None]]:
    """Where each tensor that differs lies: by the manifests, else by its name."""
    known = {
        tensor.name: (tensor.module, tensor.layer)
        for side in found.sides
        if side.edition
        for manifest in side.edition.manifests
        for tensor in manifest.tensors
    }
    for item in found.tensors:
        by_name = place_of(found.sides[0].model_type, item.name)
        module, layer = known.get(item.name) or by_name or ("other", None)
        yield module, layer, item.relative_norm
