"""Writes a delta file update by update, so that no two need be in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hubedit.description import Description, Target, is_plain
from hubedit.errors import DeltaError, EmptyDeltaError
from hubedit.headers import data_order
from hubedit.kind import Update
from hubedit.opening import TEXT_PART
from hubedit.stored import StoredTensor
from hubedit.texts import TextFile

_CHUNK = 1 << 24


class DeltaWriter:
    """A delta file that grows by one update at a time; the file is the same as `Delta.write` makes.

    What was added lies in a nameless file beside the target until `finish`.

    Args:
        path: of the delta file.
        meta: see `Delta`.

    Raises:
        DeltaError: meta cannot be stored.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any] | None = None) -> None:
        if not is_plain(dict(meta or {})):
            raise DeltaError("meta of a delta holds texts, integers, lists and objects alone")
        self._path, self._meta = path, dict(meta or {})
        self._spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        self._targets: dict[str, Target] = {}
        self._kinds: dict[str, str] = {}
        self._parts: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        self._texts: dict[str, tuple[str | None, str]] = {}

    def __enter__(self) -> DeltaWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, name: str, update: Update, target: Target) -> None:
        """Add the update of one tensor."""
        self._kinds[name], self._targets[name] = update.kind, target
        for part, stored in update.parts(0).items():
            self._store(f"{name}::{part}", stored)

    def add_text(self, file: TextFile) -> None:
        """Add a text file of the model's repository."""
        text = np.frombuffer(file.content, dtype=np.uint8)
        self._store(f"{file.path}::{TEXT_PART}", StoredTensor("U8", text.shape, text))
        self._texts[file.path] = (file.before, file.after)

    def finish(self, aliases: Mapping[str, Iterable[str]] | None = None) -> tuple[int, str]:
        """Write the file, whole or not at all; returns its size and SHA-256 (hex).

        Raises:
            EmptyDeltaError: nothing was added.
        """
        if not self._targets and not self._texts:
            raise EmptyDeltaError("nothing changed, so there is no delta to store")
        shapes = {key: (dtype, shape) for key, (dtype, shape, _, _) in self._parts.items()}
        others = {name: sorted(known) for name, known in (aliases or {}).items()}
        files = dict(sorted(self._texts.items()))
        targets = dict(sorted(self._targets.items()))
        head = Description(self._kinds, targets, others, self._meta, files).head(shapes)
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        digest, size = hashlib.sha256(head), len(head)
        try:
            with partial.open("wb") as file:
                file.write(head)
                for key in data_order(shapes):
                    _, _, begin, end = self._parts[key]
                    self._spool.seek(begin)
                    for start in range(begin, end, _CHUNK):
                        chunk = self._spool.read(min(_CHUNK, end - start))
                        digest.update(chunk)
                        file.write(chunk)
                        size += len(chunk)
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)
        return size, digest.hexdigest()

    def _store(self, key: str, part: StoredTensor) -> None:
        begin = self._spool.seek(0, os.SEEK_END)
        self._spool.write(part.data.data)
        self._parts[key] = (part.dtype, part.shape, begin, begin + part.nbytes)
