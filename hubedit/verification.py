"""Checks of an edit repository: every record is recomputed from the bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hubedit.card import card_digest
from hubedit.editions import Edition, check_base
from hubedit.errors import DeltaError, HubEditError
from hubedit.manifest import (
    CARD_FILE,
    STACK_FILE,
    UNLISTED,
    Manifest,
    StackEntry,
    Touched,
    result_digest,
    touched_tensors,
)
from hubedit.places import checkpoint, model_file_names
from hubedit.texts import TextFile
from hubedit.updates import Add, Drop, StoredTensor, Update, apply


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


def verify(edition: Edition, *, deep: bool = False) -> Report:
    """Check an edition; problems are collected, not raised.

    Args:
        edition: what to check; it has edits.
        deep: also read every tensor of the base and of the weights that the revision holds.
    """
    report = Report()
    rebuilt: dict[str, StoredTensor | None] = {}
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
            check.detail = _weights(edition, rebuilt, check, deep=deep)
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


def _rebuild(
    edition: Edition, check: Check
) -> tuple[dict[str, StoredTensor | None], dict[str, str]]:
    """Apply each delta and compare what it makes, before and after, with its record.

    Returns the tensors, None for those that went, and the digests of the files that were written.
    """
    stored = checkpoint(edition.base)
    tensors: dict[str, StoredTensor | None] = {}
    files = {file.path: file.sha256 for file in edition.stack.base.files}
    written: dict[str, str] = {}
    for entry, manifest in zip(edition.stack.edits, edition.manifests, strict=True):
        delta = edition.delta(entry)
        check.problems += _written(edition, entry, manifest, delta.files, {**files, **written})
        written |= {path: file.after for path, file in delta.files.items()}
        updates = delta.updates
        recorded = {tensor.name: tensor for tensor in manifest.tensors}
        for name in sorted(set(updates) ^ set(recorded)):
            where = (
                "changed and not recorded" if name in updates else "recorded and not in the delta"
            )
            check.problems.append(f"{entry.name}: {name} is {where}")
        for name in sorted(set(updates) & set(recorded)):
            there = name in stored.tensors
            before = tensors[name] if name in tensors else stored.read(name) if there else None
            after, record = _step(updates[name], before), recorded[name]
            if _digest(before) != record.before or updates[name].kind != record.kind:
                check.problems.append(
                    f"{entry.name}: {name} differs from its record before the edit"
                )
            known = after or before
            if _digest(after) != record.after or (
                known is None or (known.dtype, known.shape) != (record.dtype, record.shape)
            ):
                check.problems.append(
                    f"{entry.name}: {name} is rebuilt to other bits than recorded"
                )
            tensors[name] = after
    return tensors, written


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


def _digest(tensor: StoredTensor | None) -> str | None:
    return None if tensor is None else tensor.sha256()


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


def _touched(edition: Edition, rebuilt: Mapping[str, StoredTensor | None]) -> dict[str, Touched]:
    recorded = touched_tensors(edition.manifests)
    return {
        name: (recorded[name][0], _digest(tensor))
        for name, tensor in rebuilt.items()
        if name in recorded
    }


def _weights(
    edition: Edition, rebuilt: Mapping[str, StoredTensor | None], check: Check, *, deep: bool
) -> str:
    """The weights that the revision holds are the edited ones."""
    shipped, base = checkpoint(edition.place), checkpoint(edition.base)
    gone = {name for name, tensor in rebuilt.items() if tensor is None}
    expected = ({*base.tensors} | {*rebuilt}) - gone
    check.problems += [
        f"the weights lack {name}" for name in sorted(expected - set(shipped.tensors))
    ]
    check.problems += [
        f"the weights hold {name}, which base and edits do not give"
        for name in sorted(set(shipped.tensors) - expected)
    ]
    common = sorted(expected & set(shipped.tensors))
    names = common if deep else [name for name in common if name in rebuilt]
    found = shipped.hash(names)
    untouched = base.hash([name for name in names if name not in rebuilt])
    for name in names:
        wanted = _digest(rebuilt[name]) if name in rebuilt else untouched[name]
        if found[name] != wanted:
            check.problems.append(f"{name} in the weights is not what base and edits give")
    return f"{len(names)} of {len(common)} tensors of the included weights checked"


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


def _deep(
    edition: Edition, rebuilt: Mapping[str, StoredTensor | None], report: Report, check: Check
) -> str:
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
    report.tensors |= {name: tensor.sha256() for name, tensor in rebuilt.items() if tensor}
    return f"{len(report.tensors)} tensors of the edited model hashed"
