"""Edits put on another start than the one they were made on, from their recorded updates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hubedit import disclosure, keeping, reasking, recording
from hubedit.choosing import compare
from hubedit.context import Talk
from hubedit.delta import Delta
from hubedit.description import Target
from hubedit.editions import Edition
from hubedit.errors import RecipeError
from hubedit.manifest import (
    BaseRecord,
    DeltaRecord,
    FileChange,
    Manifest,
    ReplayRecord,
    StackEntry,
    result_digest,
    touched_tensors,
    written_files,
)
from hubedit.places import Place, checkpoint
from hubedit.reasking import Asker
from hubedit.shards import Checkpoint
from hubedit.updates import LowRank, StoredTensor, apply


@dataclass(frozen=True)
class Replayed:
    """One edit on its new start: its manifest there, and the files of its folder beside that."""

    was: StackEntry
    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def other(self) -> Sequence[str]:
        """The tensors that now have other bits than where the edit was made."""
        return self.manifest.replayed.tensors if self.manifest.replayed else ()


@dataclass
class Stacked:
    """A base and the edits put on it so far: manifests, and tensors and files that differ."""

    base: BaseRecord
    place: Place
    manifests: list[Manifest]
    tensors: dict[str, StoredTensor]
    texts: dict[str, bytes]

    @classmethod
    def of(cls, edition: Edition, height: int) -> Stacked:
        """The lower part of an edition.

        Raises:
            RecipeError: tensors came or went in it.
        """
        if edition.presence(height):
            raise RecipeError(
                f"below edit {height + 1} of {edition.place.title} tensors come or go, and no "
                "edit is put on that anew; revert down to it first"
            )
        below = list(edition.manifests[:height])
        tensors, texts = edition.overlay(height), edition.texts(height)
        return cls(edition.stack.base, edition.base, below, tensors, texts)

    @cached_property
    def stored(self) -> Checkpoint:
        """The tensors of the base."""
        return checkpoint(self.place)

    @property
    def result(self) -> str:
        """Result digest of the top."""
        touched, written = touched_tensors(self.manifests), written_files(self.manifests)
        return result_digest(self.base.files, touched, written)

    def file_digests(self) -> dict[str, str]:
        """SHA-256 (hex) of every file of the base, as it is now."""
        return {file.path: file.sha256 for file in self.base.files} | written_files(self.manifests)


def replay(
    edition: Edition, keep: Sequence[int], start: Stacked, *, ask: bool, talk: Talk
) -> list[Replayed]:
    """Put some edits of a stack on another start, in order.

    An update of a tensor that is as it was where the edit was made gives the same bits again. On
    other bits a low-rank update is added by the same arithmetic; an update that holds values, such
    as rows or a whole tensor, is refused, since those values hold what was below them.

    Args:
        edition: the stack they come from.
        keep: indices of the edits, ascending.
        start: what they are put on; afterwards it holds them.
        ask: whether to load the model and ask each edit's questions again.
        talk: is told what goes on.

    Raises:
        RecipeError: an edit cannot be put there, and which and why.
    """
    asker = Asker(start.place, start.base) if ask and keep else None
    found = []
    with talk.progress("edits", total=len(keep)) as bar:
        for index in keep:
            entry, manifest = edition.stack.edits[index], edition.manifests[index]
            delta, below = edition.delta(entry), (dict(start.tensors), dict(start.texts))
            moved = _put(entry, delta, start)
            draft = _manifest(manifest, moved, start)
            replayed = reasking.ask_again(
                draft, edition.place.read(f"{entry.folder}/probes.jsonl"), asker, below, start
            )
            start.manifests.append(replayed.manifest)
            files = recording.folder(replayed.manifest, replayed.probes, moved.delta)
            files |= keeping.carried(edition, entry)
            disclosure.carry_key(manifest, replayed.manifest)
            found.append(Replayed(entry, replayed.manifest, files))
            bar.advance(1)
    return found


@dataclass(frozen=True)
class _Moved:
    """A delta on its new start, what it does to each tensor there, and which have other bits."""

    delta: Delta
    changes: Mapping[str, tuple[StoredTensor, StoredTensor]]
    other: tuple[str, ...]


def _put(entry: StackEntry, delta: Delta, start: Stacked) -> _Moved:
    """Carry out an edit's updates on a start."""
    if delta.added() or delta.dropped():
        raise RecipeError(
            f"{entry.name} adds or drops tensors, and such an edit stays where it is; revert down "
            "to it first"
        )
    digests = start.file_digests()
    for path, file in delta.files.items():
        if digests.get(path) != file.before:
            raise RecipeError(
                f"{entry.name} writes {path}, which is another file without what was below it; "
                "revert down to it first"
            )
    changes: dict[str, tuple[StoredTensor, StoredTensor]] = {}
    other = []
    for name, update in delta.items():
        before = start.tensors.get(name) or start.stored.read(name)
        if before.sha256() == delta.targets[name].before:
            changes[name] = before, delta.apply(name, before)
            continue
        if not isinstance(update, LowRank):
            raise RecipeError(
                f"{entry.name} stores values of {name} ({update.kind}) that hold what was below "
                "it, so it cannot be put on anything else; revert down to it first, and apply it "
                "again"
            )
        changes[name] = before, apply(update, before)
        other.append(name)
    targets = {
        name: Target(before.dtype, before.shape, before.sha256(), after.sha256())
        for name, (before, after) in changes.items()
    }
    meta = {**delta.meta, "base": start.base.digest, "parent": start.result}
    files = delta.files.values()
    moved = Delta(delta.updates, targets, delta.aliases, meta, files)
    start.tensors |= {name: after for name, (_, after) in changes.items()}
    start.texts |= {path: file.content for path, file in delta.files.items()}
    return _Moved(moved, changes, tuple(other))


def _manifest(manifest: Manifest, moved: _Moved, start: Stacked) -> Manifest:
    """The manifest of an edit on its new start, with the questions it had on the old one."""
    records = []
    for record in manifest.tensors:
        change = compare(record.name, *moved.changes[record.name], moved.delta[record.name])
        update = {
            "before": change.sha256_before,
            "after": change.sha256_after,
            "elements_changed": change.elements_changed,
            "relative_norm": change.relative_norm,
        }
        records.append(record.model_copy(update=update))
    content = moved.delta.to_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    height = len(start.manifests) + 1
    first = manifest.replayed
    draft = manifest.model_copy(
        update={
            "edit": f"{height:04d}-{manifest.method.name}-{sha256[:8]}",
            "height": height,
            "base": start.base,
            "parent": start.result,
            "tensors": tuple(records),
            "files": tuple(
                FileChange(path=file.path, before=file.before, after=file.after)
                for file in moved.delta.files.values()
            ),
            "delta": DeltaRecord(nbytes=len(content), sha256=sha256),
            "replayed": ReplayRecord(
                edit=first.edit if first else manifest.edit,
                parent=first.parent if first else manifest.parent,
                tensors=tuple(sorted({*moved.other, *(first.tensors if first else ())})),
            ),
        }
    )
    every = [*start.manifests, draft]
    result = result_digest(start.base.files, touched_tensors(every), written_files(every))
    return draft.model_copy(update={"result": result})
