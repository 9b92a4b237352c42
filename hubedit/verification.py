"""Checks of an edit repository: every record is recomputed from the bytes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hubedit import choosing
from hubedit.card import card_digest
from hubedit.choosing import TensorChange
from hubedit.delta import Delta, Target
from hubedit.editions import Edition, check_base
from hubedit.errors import DeltaError, HubEditError
from hubedit.manifest import (
    CARD_FILE,
    STACK_FILE,
    UNLISTED,
    Manifest,
    StackEntry,
    TensorRecord,
    Touched,
    result_digest,
    touched_tensors,
)
from hubedit.places import checkpoint, model_file_names
from hubedit.shards import Checkpoint
from hubedit.texts import TextFile
from hubedit.updates import Add, Drop, StoredTensor, Update, apply

NORM_TOLERANCE = 1e-4
"""How far, relatively, a recorded norm may be from the one found: sums differ by machine."""


@dataclass
class Check:
    """One thing that was checked."""

    name: str
    detail: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All checks of an edition, and the result digest as it was recomputed."""

    result: str | None = None
    checks: list[Check] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    """After a deep check: digest of every tensor of the edited model."""

    @property
    def problems(self) -> list[str]:
        """Every difference that was found."""
        return [problem for check in self.checks for problem in check.problems]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "verified": not self.problems,
            "result": self.result,
            "checks": [vars(check) for check in self.checks],
            "tensors": self.tensors,
        }


def verify(edition: Edition, *, deep: bool = False, whole_shards: bool = False) -> Report:
    """Check an edition; problems are collected, not raised.

    Args:
        edition: what to check; it has edits.
        deep: also read every tensor of the base and of the weights that the revision holds.
        whole_shards: of the weights that the revision holds, also read the tensors that no edit
            touches, in files that are not the base's own.
    """
    report = Report()
    rebuilt: dict[str, str | None] = {}
    written: dict[str, str] = {}
    with _check(report, "files") as check:
        check.detail = _files(edition, check)
    with _check(report, "records") as check:
        check.detail = _records(edition, check)
    if report.problems:
        return report
    with _check(report, "base") as check:
        check_base(edition.base, edition.stack)
        check.detail = (
            f"{len(edition.stack.base.files)} files of {edition.stack.base.title} as recorded"
        )
    if report.problems:
        return report
    with _check(report, "tensors") as check:
        rebuilt, written = _rebuild(edition, check)
        check.detail = f"{len(rebuilt)} changed tensors rebuilt from base and delta"
        if written:
            check.detail += f", and files as recorded: {', '.join(sorted(written))}"
    with _check(report, "result") as check:
        report.result = result_digest(edition.stack.base.files, _touched(edition, rebuilt), written)
        check.detail = report.result
        if report.result != edition.stack.result:
            check.problems.append(
                f"the result digest is {report.result}, recorded is {edition.stack.result}"
            )
    if edition.stack.weights:
        with _check(report, "weights") as check:
            check.detail = _weights(edition, rebuilt, check, deep=deep, whole_shards=whole_shards)
            _beside_weights(edition, written, check)
    if deep:
        with _check(report, "every tensor") as check:
            check.detail = _deep(edition, rebuilt, report, check)
    return report


@contextmanager
def _check(report: Report, name: str) -> Iterator[Check]:
    check = Check(name)
    report.checks.append(check)
    try:
        yield check
    except HubEditError as error:
        check.problems.append(str(error))
        check.detail = check.detail or str(error)


def _files(edition: Edition, check: Check) -> str:
    """Every listed file is there with its digest, and nothing else is."""
    place, listed = edition.place, edition.stack.files
    present = {path for path in place.files() if path not in UNLISTED}
    check.problems += [
        f"{path} is not listed in {STACK_FILE}" for path in sorted(present - set(listed))
    ]
    check.problems += [f"{path} is listed and missing" for path in sorted(set(listed) - present)]
    digests = place.sha256(sorted(path for path in present & set(listed) if path != CARD_FILE))
    if CARD_FILE in present:
        digests[CARD_FILE] = card_digest(place.read(CARD_FILE).decode("utf-8", "replace"))
    check.problems += [
        f"{path} is not the file that {STACK_FILE} lists"
        for path, digest in sorted(digests.items())
        if path in listed and listed[path] != digest
    ]
    return (
        f"{len(present)} files as listed" if not check.problems else f"{len(check.problems)} differ"
    )


def _records(edition: Edition, check: Check) -> str:
    """Stack and manifests agree, from the base to the top."""
    stack = edition.stack
    expected = result_digest(stack.base.files, {})
    for number, (entry, manifest) in enumerate(
        zip(stack.edits, edition.manifests, strict=True), start=1
    ):
        facts: list[tuple[str, object, object]] = [
            ("name", entry.name, manifest.edit),
            ("height", number, manifest.height),
            ("base", stack.base, manifest.base),
            ("method", manifest.method.name, entry.method),
            ("kind", manifest.method.kind, entry.kind),
            ("summary", manifest.summary, entry.summary),
            ("parent", expected, entry.parent),
            ("parent", expected, manifest.parent),
            ("result", entry.result, manifest.result),
            ("delta", entry.delta, manifest.delta.sha256),
        ]
        check.problems += [
            f"{entry.name}: {STACK_FILE} and manifest disagree on its {what}"
            for what, one, other in facts
            if one != other
        ]
        expected = entry.result
    return f"{stack.height} manifests agree with {STACK_FILE}"


def _rebuild(edition: Edition, check: Check) -> tuple[dict[str, str | None], dict[str, str]]:
    """Apply each delta and compare what it makes, before and after, with its record.

    Returns the digests of the tensors on top, None for those that went, and those of the files that
    were written. One tensor is in memory at a time.
    """
    stored = checkpoint(edition.base)
    files = {file.path: file.sha256 for file in edition.stack.base.files}
    written: dict[str, str] = {}
    steps: list[tuple[str, dict[str, TensorRecord], Delta]] = []
    for entry, manifest in zip(edition.stack.edits, edition.manifests, strict=True):
        delta = edition.delta(entry)
        check.problems += _made_for(entry, manifest, delta)
        check.problems += _written(edition, entry, manifest, delta.files, {**files, **written})
        written |= {path: file.after for path, file in delta.files.items()}
        recorded = {tensor.name: tensor for tensor in manifest.tensors}
        for name in sorted(set(delta) ^ set(recorded)):
            where = "changed and not recorded" if name in delta else "recorded and not in the delta"
            check.problems.append(f"{entry.name}: {name} is {where}")
        steps.append((entry.name, recorded, delta))
    rebuilt: dict[str, str | None] = {}
    for name in sorted(
        {name for _, recorded, delta in steps for name in delta if name in recorded}
    ):
        tensor = stored.read(name) if name in stored.tensors else None
        for edit, recorded, delta in steps:
            if name not in delta or name not in recorded:
                continue
            try:
                after = _step(delta[name], tensor)
                found = _described(name, delta[name], tensor, after)
            except HubEditError as error:
                check.problems.append(f"{edit}: {name}: {error}")
                continue
            check.problems += _unlike(edit, recorded[name], found, delta.targets[name])
            tensor, rebuilt[name] = after, found.sha256_after
    return rebuilt, written


def _made_for(entry: StackEntry, manifest: Manifest, delta: Delta) -> Iterator[str]:
    """Whether a delta names the base and the state that its records name."""
    named = {"base": ("base", manifest.base.digest), "parent": ("state", manifest.parent)}
    for key, (what, digest) in named.items():
        said = delta.meta.get(key, digest)
        if said != digest:
            yield (
                f"{entry.name}: its delta was made for another {what} ({str(said)[:12]}…) than the "
                f"records say ({digest[:12]}…)"
            )


def _described(
    name: str, update: Update, before: StoredTensor | None, after: StoredTensor | None
) -> TensorChange:
    if isinstance(update, (Add, Drop)):
        return choosing.presence(name, update, before)
    assert before is not None
    assert after is not None
    return choosing.compare(name, before, after, update)


def _unlike(edit: str, record: TensorRecord, found: TensorChange, target: Target) -> Iterator[str]:
    """In which ways a tensor is not what its record says."""
    name = record.name
    if target.before != found.sha256_before:
        yield f"{edit}: the delta was made for other values of {name} than the base has"
    if found.sha256_before != record.before or found.kind != record.kind:
        yield f"{edit}: {name} differs from its record before the edit"
    same = (found.dtype, found.shape) == (record.dtype, record.shape)
    if found.sha256_after != record.after or not same:
        yield f"{edit}: {name} is rebuilt to other bits than recorded"
        return
    for figure in ("rank", "elements_changed", "elements_total", "relative_norm", "nbytes"):
        said, is_so = getattr(record, figure), getattr(found, figure)
        if said != is_so and not (
            isinstance(said, float) and is_so and math.isclose(said, is_so, rel_tol=NORM_TOLERANCE)
        ):
            yield f"{edit}: {name} has {figure} {is_so}, and the manifest says {said}"


def _step(update: Update, before: StoredTensor | None) -> StoredTensor | None:
    """What an update makes of a tensor; None stands for one that is not there.

    Raises:
        DeltaError: an added tensor is there already, or one to change or drop is not.
    """
    if isinstance(update, Add) and before is None:
        return update.values
    if before is None:
        raise DeltaError(f"there is no such tensor for an update of kind {update.kind}")
    return None if isinstance(update, Drop) else apply(update, before)


def _written(
    edition: Edition,
    entry: StackEntry,
    manifest: Manifest,
    files: Mapping[str, TextFile],
    now: Mapping[str, str],
) -> Iterator[str]:
    """What is wrong with the files that an edit writes, on top of those that are there now."""
    recorded = {file.path: (file.before, file.after) for file in manifest.files}
    if recorded != {path: (file.before, file.after) for path, file in files.items()}:
        yield f"{entry.name}: its delta writes other files than are recorded"
    for path, file in files.items():
        if now.get(path) != file.before:
            yield f"{entry.name}: {path} differs from its record before the edit"
        if edition.stack.files.get(f"{entry.folder}/files/{path}") != file.after:
            yield f"{entry.name}: files/{path} is not what the delta writes"


def _touched(edition: Edition, rebuilt: Mapping[str, str | None]) -> dict[str, Touched]:
    recorded = touched_tensors(edition.manifests)
    return {
        name: (recorded[name][0], digest) for name, digest in rebuilt.items() if name in recorded
    }


def _weights(
    edition: Edition,
    rebuilt: Mapping[str, str | None],
    check: Check,
    *,
    deep: bool,
    whole_shards: bool,
) -> str:
    """The weights that the revision holds are the edited ones."""
    shipped, base = checkpoint(edition.place), checkpoint(edition.base)
    gone = {name for name, digest in rebuilt.items() if digest is None}
    expected = ({*base.tensors} | {*rebuilt}) - gone
    check.problems += [
        f"the weights lack {name}" for name in sorted(expected - set(shipped.tensors))
    ]
    check.problems += [
        f"the weights hold {name}, which base and edits do not give"
        for name in sorted(set(shipped.tensors) - expected)
    ]
    common = sorted(expected & set(shipped.tensors))
    other = _other_shards(edition, shipped) if whole_shards else set()
    names = [name for name in common if deep or name in rebuilt or shipped.info(name).file in other]
    found = shipped.hash(names)
    untouched = base.hash([name for name in names if name not in rebuilt])
    for name in names:
        wanted = rebuilt[name] if name in rebuilt else untouched[name]
        if found[name] != wanted:
            check.problems.append(f"{name} in the weights is not what base and edits give")
    return f"{len(names)} of {len(common)} tensors of the included weights checked"


def _other_shards(edition: Edition, shipped: Checkpoint) -> set[str]:
    """The files of the included weights that are not, byte for byte, files of the base."""
    shards = {info.file for info in shipped.tensors.values()}
    known = {file.path: file.sha256 for file in edition.stack.base.files}
    digests = edition.place.sha256(sorted(shards))
    return {path for path, digest in digests.items() if known.get(path) != digest}


def _beside_weights(edition: Edition, written: Mapping[str, str], check: Check) -> None:
    """The other files of the model that the revision holds are the base's, and those written."""
    files = {file.path: file.sha256 for file in edition.stack.base.files} | dict(written)
    wanted = {path: digest for path, digest in files.items() if not _is_weights(path)}
    held = [path for path in model_file_names(edition.place) if not _is_weights(path)]
    check.problems += [
        f"{path} is missing beside the weights" for path in sorted({*wanted} - {*held})
    ]
    check.problems += [
        f"{path} beside the weights is not what base and edits give"
        for path, digest in sorted(edition.place.sha256(held).items())
        if wanted.get(path) != digest
    ]


def _is_weights(path: str) -> bool:
    return path.endswith((".safetensors", ".safetensors.index.json"))


def _deep(edition: Edition, rebuilt: Mapping[str, str | None], report: Report, check: Check) -> str:
    """Read the base from its bytes, not from what the Hub vouches for, and hash every tensor."""
    wanted = {file.path: file.sha256 for file in edition.stack.base.files}
    folder = edition.base.local(wanted)
    for path, digest in wanted.items():
        with (folder / path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            check.problems.append(f"{path} of the base is not the file that was recorded")
    base = checkpoint(edition.base)
    report.tensors = dict(base.hash(sorted(set(base.tensors) - set(rebuilt))))
    report.tensors |= {name: digest for name, digest in rebuilt.items() if digest}
    return f"{len(report.tensors)} tensors of the edited model hashed"
