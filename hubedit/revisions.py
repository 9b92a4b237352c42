"""The next revision of an edit repository: a directory that appears when it is complete."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hubedit.card import card_digest, human_text, render_card
from hubedit.diff import render_diff
from hubedit.editions import Edition, Presence
from hubedit.errors import OutputError, VerificationError
from hubedit.finishing import finished
from hubedit.manifest import (
    CARD_FILE,
    STACK_FILE,
    UNLISTED,
    BaseRecord,
    Manifest,
    Stack,
    StackEntry,
    touched_tensors,
)
from hubedit.places import LocalPlace, Place, model_file_names
from hubedit.probes import Probe, from_jsonl
from hubedit.shards import materialize
from hubedit.targets import stack_digest
from hubedit.updates import StoredTensor


@contextmanager
def finished_directory(output: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a working directory that becomes `output` by one rename, or vanishes.

    Raises:
        OutputError: `output` exists and is not empty (unless `replace`).
    """
    check_output(output, replace=replace)
    with finished(output, replace=replace) as work:
        yield work


def check_output(output: Path, *, replace: bool = False) -> None:
    """Refuse an output directory that holds something.

    Raises:
        OutputError: says what to do.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; give a directory with -o")
    if output.is_dir() and any(output.iterdir()) and not replace:
        raise OutputError(
            f"{output} already exists and is not empty; give another directory with -o"
        )


def add_edit(
    work: Path,
    start: Edition,
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    weights: bool,
    repo: str | None = None,
) -> Stack:
    """Write the revision that follows `start` by one edit into a directory; returns its stack.

    Args:
        work: the directory; if `weights`, it already holds the edited model's files.
        start: what the edit was made on.
        manifest: of the new edit.
        files: content of the new edit's folder beside its manifest.
        weights: whether the revision holds weights.
        repo: name of the target, for the card.
    """
    _copy_edits(work, start)
    entry = _write_edit(work, manifest, files)
    stack = Stack(
        base=start.stack.base,
        version=start.stack.version + 1,
        previous=stack_digest(start.place),
        edits=(*start.stack.edits, entry),
        weights=weights,
    )
    return _finish(work, stack, [*start.manifests, manifest], start, repo)


def _write_edit(work: Path, manifest: Manifest, files: Mapping[str, bytes]) -> StackEntry:
    """Write the folder of an edit; returns its place in the stack."""
    content = manifest.to_json().encode()
    entry = StackEntry(
        name=manifest.edit,
        method=manifest.method.name,
        kind=manifest.method.kind,
        summary=manifest.summary,
        delta=manifest.delta.sha256,
        manifest=hashlib.sha256(content).hexdigest(),
        parent=manifest.parent,
        result=manifest.result,
    )
    _write(work / entry.folder / "manifest.json", content)
    for name, data in files.items():
        _write(work / entry.folder / name, data)
    return entry


def _copy_edits(work: Path, edition: Edition) -> None:
    """Copy the folders of an edition's edits."""
    folders = tuple(f"{entry.folder}/" for entry in edition.stack.edits)
    for path in edition.place.files():
        if path.startswith(folders):
            _write(work / path, edition.place.read(path))


def _finish(
    work: Path,
    stack: Stack,
    manifests: Sequence[Manifest],
    before: Edition,
    repo: str | None,
    known: Mapping[str, str] | None = None,
) -> Stack:
    """Write the card and hubedit.json, which lists every other file; returns the stack.

    `known` are digests of files that need not be hashed again.
    """
    human = ""
    if before.stack.edits and CARD_FILE in before.place.files():
        human = human_text(before.place.read(CARD_FILE).decode("utf-8", "replace"))
    card = render_card(stack, manifests, repo=repo, weights=stack.weights, human=human)
    _write(work / CARD_FILE, card.encode())
    place = LocalPlace(work)
    listed = [path for path in place.files() if path not in UNLISTED and path != CARD_FILE]
    known = {path: digest for path, digest in (known or {}).items() if path in listed}
    fresh = place.sha256(path for path in listed if path not in known)
    digests = {**known, **fresh, CARD_FILE: card_digest(card)}
    stack = stack.model_copy(update={"files": dict(sorted(digests.items()))})
    _write(work / STACK_FILE, stack.to_json().encode())
    return stack


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_weights(
    work: Path,
    base: Place,
    tensors: Mapping[str, StoredTensor] | Mapping[str, Callable[[], StoredTensor]],
    texts: Mapping[str, bytes],
    presence: Presence,
    *,
    link: bool = False,
    hashed: bool = False,
) -> dict[str, str]:
    """Write a base's model files into an empty directory, some tensors and small files replaced.

    If `hashed`, returns the SHA-256 (hex) of those copied files that are other than the base's.
    """
    names = model_file_names(base)
    return materialize(
        base.local(names),
        work,
        tensors,
        files=names,
        texts=texts,
        added=presence.added,
        dropped=presence.dropped,
        link=link,
        hashed=hashed,
        in_place=True,
    )


@contextmanager
def model_folder(base: Place, presence: Presence) -> Iterator[Path]:
    """Give a directory with a base's model files, in which tensors have come and gone."""
    if not presence:
        yield base.local(model_file_names(base))
        return
    with tempfile.TemporaryDirectory(prefix="hubedit-") as scratch:
        folder = Path(scratch, Path(base.title).name)
        write_weights(folder, base, {}, {}, presence, link=True)
        yield folder


def materialized(edition: Edition, output: Path, *, link: bool = False) -> None:
    """Write the edited model and the records of its edits to a directory.

    Raises:
        OutputError: the directory exists and is not empty.
        VerificationError: a tensor is rebuilt to other bits than recorded.
    """
    touched, presence = touched_tensors(edition.manifests), edition.presence()
    wrong = [name for name, new in presence.added.items() if new.sha256() != touched[name][1]]
    if wrong:
        raise VerificationError(
            edition.place.title,
            [f"{name} is rebuilt to other bits than recorded" for name in wrong],
        )
    with finished_directory(output) as work:
        texts, tensors = edition.texts(), edition.rebuilding()
        written = write_weights(
            work, edition.base, tensors, texts, presence, link=link, hashed=True
        )
        copied = {file.path: file.sha256 for file in edition.stack.base.files}
        known = {path: digest for path, digest in copied.items() if path not in texts} | written
        _copy_edits(work, edition)
        stack = edition.stack.model_copy(update={"weights": True})
        _finish(work, stack, edition.manifests, edition, None, known)


def write_revision(work: Path, edition: Edition, height: int) -> Stack:
    """Write an edition's lower part, up to a height, as the revision that follows it."""
    stack = edition.stack
    lower = stack.model_copy(
        update={
            "edits": stack.edits[:height],
            "version": stack.version + 1,
            "previous": stack_digest(edition.place),
        }
    )
    if stack.weights:
        tensors, texts = edition.rebuilding(height), edition.texts(height)
        write_weights(work, edition.base, tensors, texts, edition.presence(height))
    below = Edition(edition.place, lower, edition.hub, edition.base_given)
    _copy_edits(work, below)
    return _finish(work, lower, edition.manifests[:height], edition, None)


def write_restacked(
    work: Path,
    edition: Edition,
    base: BaseRecord,
    height: int,
    above: Sequence[tuple[Manifest, Mapping[str, bytes]]],
) -> Stack:
    """Write an edition's lower part with other edits on it, as the revision that follows it.

    Args:
        work: the directory; if the edition holds weights, it already holds the new model's files.
        edition: what is followed.
        base: of the new stack.
        height: how many edits stay as they are.
        above: the manifest and the other files of each further edit.
    """
    stack = edition.stack
    lower = stack.model_copy(update={"edits": stack.edits[:height]})
    _copy_edits(work, Edition(edition.place, lower, edition.hub, edition.base_given))
    entries = [_write_edit(work, manifest, files) for manifest, files in above]
    new = Stack(
        base=base,
        version=stack.version + 1,
        previous=stack_digest(edition.place),
        edits=(*lower.edits, *entries),
        weights=stack.weights,
    )
    manifests = [*edition.manifests[:height], *(manifest for manifest, _ in above)]
    return _finish(work, new, manifests, edition, None)


def write_measured(
    work: Path, edition: Edition, manifest: Manifest, probes: Sequence[Probe]
) -> list[str]:
    """Write an edition again whose newest edit has another manifest; returns what is new.

    Args:
        work: a directory that holds every other file of the revision.
        edition: as it is.
        manifest: of the newest edit.
        probes: of the newest edit.
    """
    last = edition.stack.edits[-1]
    page = render_diff(
        manifest, [probe.model_dump() for probe in probes], layers=manifest.base.layers
    )
    (work / last.folder / "manifest.json").unlink()
    (work / last.folder / "DIFF.md").unlink()
    entry = _write_edit(work, manifest, {"DIFF.md": page.encode()})
    stack = edition.stack.model_copy(update={"edits": (*edition.stack.edits[:-1], entry)})
    new = [f"{last.folder}/manifest.json", f"{last.folder}/DIFF.md"]
    known = {path: digest for path, digest in edition.stack.files.items() if path not in new}
    _finish(work, stack, [*edition.manifests[:-1], manifest], edition, None, known)
    return [*new, CARD_FILE]


def review_text(directory: Path) -> str:
    """The review page of the newest edit of a directory: the text of its pull request."""
    place = LocalPlace(directory)
    top = Stack.from_json(place.read(STACK_FILE)).edits[-1]
    manifest = Manifest.from_json(place.read(f"{top.folder}/manifest.json"))
    found = from_jsonl(place.read(f"{top.folder}/probes.jsonl").decode("utf-8"))
    return render_diff(manifest, [probe.model_dump() for probe in found], picture=None)
