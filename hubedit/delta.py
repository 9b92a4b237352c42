"""The delta file: what one edit changed, as canonical safetensors that is read without trust."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hubedit.choosing import Change, Choice, TensorChange, choose, compare
from hubedit.choosing import presence as describe_presence
from hubedit.description import FORMAT, Description, Target, is_plain, read_description
from hubedit.errors import BaseMismatchError, DeltaError, DeltaFormatError, EmptyDeltaError
from hubedit.headers import Header, HeaderProblem, data_order, read_header
from hubedit.sizes import low_rank_file_nbytes, low_rank_nbytes
from hubedit.stored import StoredTensor
from hubedit.texts import MAX_TEXT, TextFile
from hubedit.updates import KINDS, Add, Drop, Update, apply

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

TEXT_PART = "text"
"""The part of the file that holds a text file of the model's repository."""


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
        self.updates: Mapping[str, Update] = {name: updates[name] for name in sorted(updates)}
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

    def added(self) -> dict[str, StoredTensor]:
        """The tensors that the delta adds, by name.

        Raises:
            DeltaError: one is not what the delta says: it is damaged.
        """
        found = {name: one.values for name, one in self.updates.items() if isinstance(one, Add)}
        for name, tensor in found.items():
            if tensor.sha256() != self.targets[name].after:
                raise DeltaError(f"the delta adds another {name!r} than it says: it is damaged")
        return found

    def dropped(self) -> dict[str, str]:
        """Digests of the tensors that the delta drops, by name."""
        return {
            name: target.before or ""
            for name, target in self.targets.items()
            if isinstance(self.updates[name], Drop)
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
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                for chunk in self._chunks():
                    digest.update(chunk)
                    file.write(chunk)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return digest.hexdigest()

    @classmethod
    def read(
        cls, source: str | os.PathLike[str] | bytes | BinaryIO, where: str | None = None
    ) -> Delta:
        """Read a delta file; nothing in it is trusted, and nothing of it is executed.

        Args:
            source: a path, the content, or a binary file that can seek.
            where: what errors call it.

        Raises:
            DeltaFormatError: it is damaged, not a delta, or of a format this version does not know.
        """
        if isinstance(source, (bytes, bytearray, memoryview)):
            return cls._read(io.BytesIO(source), where or "the delta")
        if isinstance(source, (str, os.PathLike)):
            try:
                with open(source, "rb") as file:
                    return cls._read(file, where or os.fspath(source))
            except OSError as error:
                raise DeltaFormatError(
                    f"{where or os.fspath(source)} cannot be read: {error.strerror}"
                ) from error
        return cls._read(source, where or "the delta")

    @classmethod
    def read_verified(cls, content: bytes, sha256: str, where: str) -> Delta:
        """Read a delta file that a record names by its SHA-256 (hex).

        Raises:
            DeltaFormatError: it is another file, or as in `read`.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise DeltaFormatError(
                f"{where} is not the file that was recorded: its sha256 is {found}, recorded is "
                f"{sha256}; fetch it again"
            )
        return cls.read(content, where)

    @classmethod
    def _read(cls, file: BinaryIO, where: str) -> Delta:
        def read(begin: int, end: int) -> bytes:
            file.seek(begin)
            return file.read(end - begin)

        try:
            header = read_header(read, file.seek(0, os.SEEK_END))
            delta = _parsed(cls, header, read)
            if delta._head()[8:] != header.content:
                raise HeaderProblem("its header is not in canonical form")
        except (HeaderProblem, DeltaError) as error:
            raise DeltaFormatError(f"{where} is not a delta that can be used: {error}") from error
        return delta

    def _stored(self) -> dict[str, StoredTensor]:
        """Every part by its key in the file."""
        found = {
            f"{name}::{part}": stored
            for name, update in self.updates.items()
            for part, stored in update.parts(math.prod(self.targets[name].shape)).items()
        }
        for path, file in self.files.items():
            text = np.frombuffer(file.content, dtype=np.uint8)
            found[f"{path}::{TEXT_PART}"] = StoredTensor("U8", text.shape, text)
        return found

    def _head(self) -> bytes:
        shapes = {key: (part.dtype, part.shape) for key, part in self._stored().items()}
        kinds = {name: update.kind for name, update in self.updates.items()}
        files = {path: (file.before, file.after) for path, file in self.files.items()}
        return Description(kinds, self.targets, self.aliases, self.meta, files).head(shapes)

    def _chunks(self) -> Iterator[bytes | memoryview]:
        parts = self._stored()
        yield self._head()
        for key in data_order({key: (part.dtype, part.shape) for key, part in parts.items()}):
            yield parts[key].data.data


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


def _parsed(kind: type[Delta], header: Header, read: Callable[[int, int], bytes]) -> Delta:
    """Build the delta that a header describes."""
    described = read_description(header.metadata)
    keys: dict[str, dict[str, str]] = {name: {} for name in described.targets}
    texts: dict[str, bytes] = {}
    for key, slot in header.tensors.items():
        name, _, part = key.rpartition("::")
        if part == TEXT_PART and name in described.files:
            if slot.dtype != "U8" or len(slot.shape) != 1 or slot.shape[0] > MAX_TEXT:
                raise HeaderProblem(f"the text of {name!r} is not a list of U8, or too long")
            texts[name] = read(slot.begin, slot.end)
            continue
        if name not in keys:
            raise HeaderProblem(f"it stores {key!r}, which belongs to no update")
        keys[name][part] = key
    updates = {}
    for name, target in described.targets.items():
        parts = {}
        for part, key in keys[name].items():
            slot = header.tensors[key]
            data = np.frombuffer(read(slot.begin, slot.end), dtype=np.uint8)
            parts[part] = StoredTensor(slot.dtype, slot.shape, data)
        try:
            update = KINDS[described.kinds[name]].from_parts(parts, target.dtype, target.shape)
        except DeltaError as error:
            raise HeaderProblem(f"the update of {name!r} is not usable: {error}") from error
        updates[name] = update
    files = [_file(path, before, after, texts) for path, (before, after) in described.files.items()]
    return kind(updates, described.targets, described.aliases, described.meta, files)


def _file(path: str, before: str | None, after: str, texts: Mapping[str, bytes]) -> TextFile:
    if path not in texts:
        raise HeaderProblem(f"it does not store the text of {path!r}")
    file = TextFile(path, before, texts[path])
    if file.after != after or not file.changes:
        raise HeaderProblem(f"the text of {path!r} is not the one that it describes")
    return file
