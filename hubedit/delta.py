"""The delta file: what one edit changed, as canonical safetensors that is read without trust."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from hubedit.choosing import Change, Choice, TensorChange, choose, compare
from hubedit.choosing import presence as describe_presence
from hubedit.description import FORMAT, Description, Target, is_plain
from hubedit.errors import BaseMismatchError, DeltaError, DeltaFormatError, EmptyDeltaError
from hubedit.headers import HeaderProblem, data_order, read_header
from hubedit.opening import TEXT_PART, FileUpdates, Read, Shapes
from hubedit.sizes import low_rank_file_nbytes, low_rank_nbytes
from hubedit.stored import StoredTensor
from hubedit.texts import TextFile
from hubedit.updates import Add, Drop, Update, apply

__all__ = [
    "FORMAT",
    "Change",
    "Choice",
    "Delta",
    "Encoded",
    "Target",
    "TensorChange",
    "TextFile",
    "encode",
    "low_rank_file_nbytes",
    "low_rank_nbytes",
]


class Delta(Mapping[str, Update]):
    """What one edit changed: an update for each tensor, by stored name, sorted.

    Args:
        updates: the update of each tensor.
        targets: what each tensor is before and after; the same names.
        aliases: other names of a tensor, by its stored name: tied parameters.
        meta: JSON without fractions that names where the delta belongs, such as its base.
        files: text files of the model's repository that are written, by their paths.

    Raises:
        EmptyDeltaError: there is neither an update nor a file.
        DeltaError: names or meta cannot be stored.
    """

    def __init__(
        self,
        updates: Mapping[str, Update],
        targets: Mapping[str, Target],
        aliases: Mapping[str, Sequence[str]] | None = None,
        meta: Mapping[str, Any] | None = None,
        files: Iterable[TextFile] = (),
    ) -> None:
        self.files: Mapping[str, TextFile] = {
            file.path: file for file in sorted(files, key=lambda file: file.path)
        }
        if not updates and not self.files:
            raise EmptyDeltaError("nothing changed, so there is no delta to store")
        if set(updates) != set(targets):
            raise DeltaError("a delta needs one target for each update")
        if not is_plain(dict(meta or {})):
            raise DeltaError("meta of a delta holds texts, integers, lists and objects alone")
        self.updates: Mapping[str, Update] = updates
        if not isinstance(updates, FileUpdates):
            self.updates = {name: updates[name] for name in sorted(updates)}
        self.targets: Mapping[str, Target] = {name: targets[name] for name in self.updates}
        self.aliases = {
            name: tuple(sorted(others)) for name, others in sorted((aliases or {}).items())
        }
        self.meta = dict(meta or {})

    def __getitem__(self, name: str) -> Update:
        return self.updates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.updates)

    def __len__(self) -> int:
        return len(self.updates)

    def __repr__(self) -> str:
        return f"Delta({dict(self.updates)!r})"

    @property
    def kinds(self) -> Mapping[str, str]:
        """The kind of each update by its tensor's name; nothing is read."""
        if isinstance(self.updates, FileUpdates):
            return self.updates.kinds
        return {name: update.kind for name, update in self.updates.items()}

    def apply(self, name: str, before: StoredTensor) -> StoredTensor:
        """The tensor that the delta makes of its base, both checked by their digests.

        Raises:
            BaseMismatchError: the tensor is not the one the delta was made from.
            DeltaError: the delta has no such tensor, or does not make what it says.
        """
        if name not in self.updates:
            raise DeltaError(f"the delta does not change {name!r}; it changes {list(self)}")
        target = self.targets[name]
        if target.before is None or target.after is None:
            raise DeltaError(f"{name!r} is not changed by the delta: it comes or goes")
        if (before.dtype, before.shape) != (target.dtype, target.shape):
            raise BaseMismatchError(
                f"{name!r} is {before.dtype} {list(before.shape)} and the delta was made from "
                f"{target.dtype} {list(target.shape)}: give the base it was made from"
            )
        if before.sha256() != target.before:
            raise BaseMismatchError(
                f"{name!r} holds other values than the delta was made from: give the base it was "
                "made from"
            )
        after = apply(self.updates[name], before)
        if after.sha256() != target.after:
            raise DeltaError(
                f"the delta makes of {name!r} another tensor than it says: it is damaged"
            )
        return after

    def undo(self, name: str, after: StoredTensor) -> StoredTensor:
        """The tensor of the base, from the one that the delta makes; both are checked.

        Raises:
            BaseMismatchError: the tensor is not the one that the delta makes.
            DeltaError: its update does not hold what was before, or is damaged.
        """
        target = self.targets[name]
        if after.sha256() != target.after:
            raise BaseMismatchError(f"{name!r} is not the tensor that the delta makes")
        before = self.updates[name].undo(after)
        if before.sha256() != target.before:
            raise DeltaError(f"the delta takes {name!r} back to another tensor than it says")
        return before

    def added(self) -> dict[str, StoredTensor]:
        """The tensors that the delta adds, by name.

        Raises:
            DeltaError: one is not what the delta says: it is damaged.
        """
        coming = ((name, self[name]) for name, kind in self.kinds.items() if kind == Add.kind)
        found = {name: one.values for name, one in coming if isinstance(one, Add)}
        for name, tensor in found.items():
            if tensor.sha256() != self.targets[name].after:
                raise DeltaError(f"the delta adds another {name!r} than it says: it is damaged")
        return found

    def dropped(self) -> dict[str, str]:
        """Digests of the tensors that the delta drops, by name."""
        return {
            name: target.before or ""
            for name, target in self.targets.items()
            if self.kinds[name] == Drop.kind
        }

    def text(self, path: str, before: str | None) -> bytes:
        """The content that the delta gives a file of the model's repository.

        Args:
            path: of the file.
            before: SHA-256 (hex) of the file it replaces, or None where there is none.

        Raises:
            BaseMismatchError: that is not the file the delta was made from.
            DeltaError: the delta writes no such file.
        """
        if path not in self.files:
            raise DeltaError(f"the delta does not write {path!r}; it writes {list(self.files)}")
        if self.files[path].before != before:
            raise BaseMismatchError(
                f"{path} is not the file that the delta was made from: give the base it was made "
                "from"
            )
        return self.files[path].content

    def to_bytes(self) -> bytes:
        """The file; the same for the same delta, see docs/delta-format.md."""
        return b"".join(self._chunks())

    def write(self, path: str | os.PathLike[str]) -> str:
        """Write the file, whole or not at all; returns its SHA-256 (hex)."""
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
        digest = hashlib.sha256()
        try:
            with unfinished.open("wb") as file:
                for chunk in self._chunks():
                    digest.update(chunk)
                    file.write(chunk)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return digest.hexdigest()

    @classmethod
    def read(
        cls, source: str | os.PathLike[str] | bytes | BinaryIO, where: str | None = None
    ) -> Delta:
        """Read a delta file; nothing in it is trusted, and nothing of it is executed.

        Args:
            source: a path, the content, or a binary file that can seek. Updates are read from it
                when they are asked for, so it must stay as it is.
            where: what errors call it.

        Raises:
            DeltaFormatError: it is damaged, not a delta, or of a format this version does not know.
        """
        if isinstance(source, (bytes, bytearray, memoryview)):
            view = memoryview(source)
            return cls._read(lambda begin, end: view[begin:end], len(view), where or "the delta")
        if isinstance(source, (str, os.PathLike)):
            path = os.fspath(source)
            try:
                return cls._read(partial(_range, path), os.stat(path).st_size, where or path)
            except OSError as error:
                raise DeltaFormatError(
                    f"{where or path} cannot be read: {error.strerror}"
                ) from error

        def read(begin: int, end: int) -> bytes:
            source.seek(begin)
            return source.read(end - begin)

        return cls._read(read, source.seek(0, os.SEEK_END), where or "the delta")

    @classmethod
    def read_verified(cls, content: bytes, sha256: str, where: str) -> Delta:
        """Read a delta file that a record names by its SHA-256 (hex).

        Raises:
            DeltaFormatError: it is another file, or as in `read`.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise _another(where, found, sha256)
        return cls.read(content, where)

    @classmethod
    def open_verified(cls, path: Path, sha256: str, where: str) -> Delta:
        """Like `read_verified`, of a file whose updates stay on the disk until they are used."""
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise _another(where, found, sha256)
        return cls.read(path, where)

    @classmethod
    def _read(cls, read: Read, size: int, where: str) -> Delta:
        try:
            header = read_header(lambda begin, end: bytes(read(begin, end)), size)
            updates = FileUpdates(header, read)
            told = updates.description
            delta = cls(updates, told.targets, told.aliases, told.meta, updates.texts)
            if delta._head(updates.check() | delta._texts())[8:] != header.content:
                raise HeaderProblem("its header is not in canonical form")
        except (HeaderProblem, DeltaError) as error:
            raise DeltaFormatError(f"{where} is not a delta that can be used: {error}") from error
        return delta

    def _texts(self) -> Shapes:
        return {
            f"{path}::{TEXT_PART}": ("U8", (len(file.content),))
            for path, file in self.files.items()
        }

    def _head(self, shapes: Shapes) -> bytes:
        files = {path: (file.before, file.after) for path, file in self.files.items()}
        described = Description(self.kinds, self.targets, self.aliases, self.meta, files)
        return described.head(shapes)

    def _chunks(self) -> Iterator[bytes | memoryview]:
        shapes = self._texts()
        for name, update in self.updates.items():
            for part, stored in update.parts(0).items():
                shapes[f"{name}::{part}"] = (stored.dtype, stored.shape)
        yield self._head(shapes)
        for key in data_order(shapes):
            name, _, part = key.rpartition("::")
            if part == TEXT_PART and name in self.files:
                yield self.files[name].content
            else:
                yield self.updates[name].parts(0)[part].data.data


def _range(path: str, begin: int, end: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _another(where: str, found: str, recorded: str) -> DeltaFormatError:
    return DeltaFormatError(
        f"{where} is not the file that was recorded: its sha256 is {found}, recorded is "
        f"{recorded}; fetch it again"
    )


@dataclass(frozen=True)
class Encoded:
    """A delta with what was decided and changed, tensor by tensor, and the tensors it makes."""

    delta: Delta
    choices: Sequence[Choice]
    changes: Sequence[TensorChange]
    after: Mapping[str, StoredTensor]


def encode(
    changes: Mapping[str, Change],
    read_before: Callable[[str], StoredTensor],
    *,
    presence: Mapping[str, tuple[Add | Drop, StoredTensor | None]] | None = None,
    meta: Mapping[str, Any] | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
    files: Iterable[TextFile] = (),
) -> Encoded:
    """Store what a method did to a model.

    Args:
        changes: for each stored tensor, the updates recorded for it, or the tensor left behind.
        read_before: reads a stored tensor as it was before.
        presence: tensors that come or go, each with the one that is there of its name.
        meta: see `Delta`.
        aliases: other names of tensors, by stored name; those of unchanged tensors are left out.
        files: files of the model's repository that were written; those as before are left out.

    Raises:
        EmptyDeltaError: no tensor is other than before, once rounded to its dtype, and no file.
        NonFiniteUpdateError: NaN or infinity would be written.
        DeltaError: a change does not fit its tensor.
    """
    choices: list[Choice] = []
    described: list[TensorChange] = []
    updates: dict[str, Update] = {}
    rebuilt: dict[str, StoredTensor] = {}
    for name in sorted(changes):
        before = read_before(name)
        try:
            update, after, reason = choose(changes[name], before)
        except DeltaError as error:
            raise type(error)(f"{name}: {error}") from error
        if update is None:
            choices.append(Choice(name, "none", 0, reason))
            continue
        updates[name], rebuilt[name] = update, after
        described.append(compare(name, before, after, update))
        choices.append(Choice(name, update.kind, described[-1].nbytes, reason))
    for name, (coming, there) in sorted((presence or {}).items()):
        if name in updates:
            raise DeltaError(f"{name}: a tensor is changed or dropped, not both")
        updates[name] = coming
        described.append(describe_presence(name, coming, there))
        choices.append(Choice(name, coming.kind, described[-1].nbytes, "as the method asked"))
    files = [file for file in files if file.changes]
    if not updates and not files:
        reasons = "; ".join(f"{choice.name}: {choice.reason}" for choice in choices[:3])
        raise EmptyDeltaError(
            f"the method changed nothing, so there is nothing to store ({reasons or 'no update'})"
        )
    targets = {
        change.name: Target(change.dtype, change.shape, change.sha256_before, change.sha256_after)
        for change in described
    }
    tied = {name: others for name, others in (aliases or {}).items() if name in updates}
    return Encoded(Delta(updates, targets, tied, meta, files), choices, described, rebuilt)
