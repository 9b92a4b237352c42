"""The store of large files: each once, named by its SHA-256, whatever repositories hold it."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from hubedit_localhub.durable import sync
from hubedit_localhub.refusals import Refusal

STALE_SECONDS = 24 * 3600
_OID = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")
WHOLE = "whole"


def check_oid(oid: object) -> str:
    """Return `oid` if it is a SHA-256 in lower-case hexadecimal, else refuse with 422."""
    if not isinstance(oid, str) or not _OID.fullmatch(oid):
        raise Refusal(422, f"Invalid LFS object id: {oid!r}")
    return oid


class Incoming:
    """A file on its way in: written to the side, hashed as it comes, then renamed into place."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.path = objects.incoming / secrets.token_hex(16)
        self._file: BinaryIO = open(self.path, "xb")  # noqa: SIM115
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, blocks: Iterable[bytes]) -> None:
        """Append `blocks`."""
        for block in blocks:
            self._hash.update(block)
            self._file.write(block)
            self.size += len(block)

    def finish(self, oid: str, size: int) -> None:
        """Put the file into the store, or refuse with 422 if it is not what was announced."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self.size != size or self._hash.hexdigest() != oid:
            raise Refusal(422, f"the content is not the announced object {oid} of {size} bytes")
        self._objects.adopt(self.path, oid)

    def discard(self) -> None:
        """Close and remove what was written; after `finish` nothing happens."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Part:
    """One part on its way in, written where it belongs in the file that all parts make."""

    def __init__(self, place: Path, number: int, start: int) -> None:
        self._mark, self._start = place / str(number), start
        self._file = os.open(place / WHOLE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = 0

    def write(self, blocks: Iterable[bytes]) -> None:
        """Append `blocks`."""
        for block in blocks:
            rest = memoryview(block)
            while rest:
                written = os.pwrite(self._file, rest, self._start + self.size)
                self.size += written
                rest = rest[written:]

    def finish(self) -> None:
        """Note that the part is complete."""
        self._mark.touch()

    def discard(self) -> None:
        """Close the file; a part that is not complete is written over when it is sent again."""
        os.close(self._file)


class Objects:
    """Large files under `root`; parts of an upload lie apart until it ends."""

    def __init__(self, root: Path) -> None:
        self.root, self.incoming = root, root / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, oid: str) -> Path:
        """Return where the object lies, or would lie."""
        return self.root / oid[:2] / oid[2:4] / oid

    def size(self, oid: str) -> int | None:
        """Return the size of a stored object in bytes, or None."""
        try:
            return self.path(oid).stat().st_size
        except FileNotFoundError:
            return None

    def adopt(self, file: Path, oid: str) -> None:
        """Move a finished file into the store."""
        target = self.path(oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(file, 0o444)
        os.replace(file, target)
        sync([target.parent, target.parent.parent, self.root])

    def remove(self, oid: str) -> None:
        """Remove a stored object."""
        self.path(oid).unlink(missing_ok=True)

    def begin_parts(self) -> str:
        """Return the name of a new upload in parts."""
        upload = secrets.token_hex(16)
        (self.incoming / f"{upload}.parts").mkdir()
        return upload

    def _parts(self, upload: str) -> Path:
        place = self.incoming / f"{upload}.parts"
        if not _UPLOAD.fullmatch(upload) or not place.is_dir():
            raise Refusal(404, "this upload is finished or was given up; commit again")
        return place

    def part(self, upload: str, number: int, start: int) -> Part:
        """Begin to receive one part of an upload, whose first byte is at `start` of the whole."""
        return Part(self._parts(upload), number, start)

    def finish_parts(self, upload: str, count: int, oid: str, size: int) -> None:
        """Check the whole that the parts of an upload make, and put it into the store."""
        place = self._parts(upload)
        for number in range(1, count + 1):
            if not (place / str(number)).exists():
                raise Refusal(400, f"part {number} of {count} was not uploaded")
        with (place / WHOLE).open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found = file.tell()
        if digest != oid or found != size:
            raise Refusal(422, f"the content is not the announced object {oid} of {size} bytes")
        self.adopt(place / WHOLE, oid)
        shutil.rmtree(place, ignore_errors=True)

    def sweep(self, before: float | None = None) -> None:
        """Remove uploads that were given up: untouched since `before`, a day ago if not said."""
        limit = time.time() - STALE_SECONDS if before is None else before
        for entry in self.incoming.iterdir():
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(
                    missing_ok=True
                )
