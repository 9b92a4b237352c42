"""A base with a stack of edits on it, read from wherever a revision lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

from hubedit.delta import Delta
from hubedit.errors import BaseMismatchError, ManifestError, VerificationError
from hubedit.hub import Hub
from hubedit.manifest import (
    STACK_FILE,
    Manifest,
    Stack,
    StackEntry,
    touched_tensors,
    written_files,
)
from hubedit.places import HubPlace, Place, base_record, checkpoint, open_base, open_place
from hubedit.updates import Add, Drop, StoredTensor

OpenHub = Callable[[], Hub]

LARGE = 1 << 26
"""Bytes of a delta file above which its updates stay on the disk until they are used."""


@dataclass(frozen=True)
class Presence:
    """Which tensors a stack of edits adds to its base, and which of the base's it drops."""

    added: Mapping[str, StoredTensor] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.added or self.dropped)

    def after(self, delta: Delta) -> Presence:
        """The same with one edit more."""
        added, gone = dict(self.added), delta.dropped()
        of_base = {name for name in gone if added.pop(name, None) is None}
        return Presence(added | delta.added(), self.dropped | of_base)


@dataclass
class Edition:
    """A base with a stack of edits on it, as one revision holds them; a plain model has none."""

    place: Place
    stack: Stack
    hub: OpenHub
    base_given: str | None = None

    @cached_property
    def base(self) -> Place:
        """Where the base lies; its model files are as the stack says.

        Raises:
            BaseMismatchError: a local base has changed since.
        """
        if STACK_FILE not in self.place.files():
            return self.place
        place = open_base(self.stack.base, self.hub, self.base_given)
        if not isinstance(place, HubPlace) or self.base_given is not None:
            check_base(place, self.stack)
        return place

    @cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifest of every edit, bottom first."""
        found = []
        for entry in self.stack.edits:
            content = self.place.read(f"{entry.folder}/manifest.json")
            if hashlib.sha256(content).hexdigest() != entry.manifest:
                raise ManifestError(
                    f"{entry.folder}/manifest.json of {self.place.title} is not the one that "
                    f"{STACK_FILE} lists; run `hubedit verify` for all that differs"
                )
            found.append(Manifest.from_json(content))
        return tuple(found)

    def delta(self, entry: StackEntry) -> Delta:
        """Read the delta of one edit.

        Raises:
            DeltaFormatError: it is not the file that was recorded, or is damaged.
        """
        path = f"{entry.folder}/delta.safetensors"
        listed = self.place.files()
        if path in listed and listed[path].size > LARGE:
            return Delta.open_verified(self.place.local([path]) / path, entry.delta, path)
        return Delta.read_verified(self.place.read(path), entry.delta, path)

    def overlay(self, height: int | None = None) -> dict[str, StoredTensor]:
        """The tensors that differ from the base's at a height of the stack, rebuilt bit for bit.

        Those that came or went are left out; see `presence`.
        """
        return {name: rebuild() for name, rebuild in self.rebuilding(height).items()}

    def rebuilding(self, height: int | None = None) -> dict[str, Callable[[], StoredTensor]]:
        """The same tensors, each as a function that rebuilds it when it is called.

        Raises:
            VerificationError: other tensors come, go or are made than recorded.
        """
        stored = checkpoint(self.base) if self.stack.edits else None
        touched = touched_tensors(self.manifests[:height])
        steps: dict[str, list[Delta]] = {}
        for entry, manifest in zip(self.stack.edits[:height], self.manifests, strict=False):
            delta = self.delta(entry)
            moved = {*delta.added(), *delta.dropped()}
            if moved != _moved(manifest):
                raise VerificationError(entry.name, ["other tensors come and go than recorded"])
            for name in moved:
                steps.pop(name, None)
            for name in delta:
                if name not in moved:
                    steps.setdefault(name, []).append(delta)
        for name, deltas in steps.items():
            if name in touched and deltas[-1].targets[name].after != touched[name][1]:
                raise VerificationError(
                    self.place.title, [f"{name} is rebuilt to other bits than recorded"]
                )

        def rebuild(name: str) -> StoredTensor:
            assert stored is not None
            tensor = stored.read(name)
            for delta in steps[name]:
                tensor = delta.apply(name, tensor)
            return tensor

        return {name: partial(rebuild, name) for name in steps}

    def presence(self, height: int | None = None) -> Presence:
        """The tensors that came and went up to a height of the stack, as its manifests say."""
        found = Presence()
        for entry, manifest in zip(self.stack.edits[:height], self.manifests, strict=False):
            if _moved(manifest):
                found = found.after(self.delta(entry))
        return found

    def file_digests(self, height: int | None = None) -> dict[str, str]:
        """SHA-256 (hex) of every file of the base, as it is at a height of the stack."""
        base = {file.path: file.sha256 for file in self.stack.base.files}
        return base | written_files(self.manifests[:height])

    def texts(self, height: int | None = None) -> dict[str, bytes]:
        """The small files that are other than the base's at a height of the stack.

        Raises:
            VerificationError: a delta does not write what its manifest says.
        """
        found: dict[str, bytes] = {}
        for number, entry in enumerate(self.stack.edits[:height]):
            recorded = self.manifests[number].files
            if not recorded:
                continue
            delta, before = self.delta(entry), self.file_digests(number)
            found |= {path: delta.text(path, before.get(path)) for path in delta.files}
            if {file.path: file.after for file in recorded} != {
                path: file.after for path, file in delta.files.items()
            }:
                raise VerificationError(entry.name, ["its delta writes other files than recorded"])
        return found


def _moved(manifest: Manifest) -> set[str]:
    """The tensors that an edit adds or drops."""
    return {tensor.name for tensor in manifest.tensors if tensor.kind in (Add.kind, Drop.kind)}


def check_base(place: Place, stack: Stack) -> None:
    """Refuse a base whose files are not those the stack was made on.

    Raises:
        BaseMismatchError: names the files that differ.
    """
    wanted = {file.path: file.sha256 for file in stack.base.files}
    here = place.files()
    missing = [path for path in wanted if path not in here]
    digests = place.sha256(path for path in wanted if path in here)
    changed = [path for path, digest in digests.items() if digest != wanted[path]]
    if missing or changed:
        raise BaseMismatchError(
            f"{place.title} is not the base of this edit ({stack.base.title}): "
            + "; ".join(
                [f"{path} differs" for path in changed] + [f"{path} is missing" for path in missing]
            )
            + "; give the right one with --base"
        )


def open_edition(text: str, hub: OpenHub, base: str | None = None) -> Edition:
    """Open `DIR` or `REPO[@REV]`: an edit repository, or a plain model as a stack without edits."""
    return edition_at(open_place(text, hub), hub, base)


def edition_at(place: Place, hub: OpenHub, base: str | None = None) -> Edition:
    """Open the edition that a place holds."""
    if STACK_FILE in place.files():
        stack = Stack.from_json(place.read(STACK_FILE))
        return Edition(place, stack, hub, base)
    return Edition(place, Stack(base=base_record(place), edits=()), hub)


def edits_of(text: str, hub: OpenHub, base: str | None = None) -> Edition:
    """Open an edition that must have edits.

    Raises:
        ManifestError: there is no hubedit.json.
    """
    place = open_place(text, hub)
    if STACK_FILE not in place.files():
        raise ManifestError(
            f"{place.title} has no {STACK_FILE}, so it is not an edit; name a directory that "
            "`hubedit apply` wrote or a repository it was pushed to, at a revision that holds it "
            "(a pull request is REPO@refs/pr/N)"
        )
    return edition_at(place, hub, base)
