"""The store of large files: each once, named by its SHA-256, whatever repositories hold it."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from hubedit_localhub.durable import sync
from hubedit_localhub.refusals import Refusal

STALE_SECONDS = 24 * 3600
_OID = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_BLOCK = 1 << 20


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

    def write(self, block: bytes) -> None:
        """Append `block`."""
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

    def write_part(self, upload: str, number: int, incoming: Incoming) -> str:
        """Keep one received part and return its entity tag."""
        place = self._parts(upload)
        incoming._file.close()
        os.replace(incoming.path, place / f"{number:05d}")
        return incoming._hash.hexdigest()

    def finish_parts(self, upload: str, count: int, oid: str, size: int) -> None:
        """Join the parts of an upload, check the whole and put it into the store."""
        place = self._parts(upload)
        whole = Incoming(self)
        try:
            for number in range(1, count + 1):
                try:
                    part = open(place / f"{number:05d}", "rb")  # noqa: SIM115
                except FileNotFoundError:
                    raise Refusal(400, f"part {number} of {count} was not uploaded") from None
                with part:
                    while block := part.read(_BLOCK):
                        whole.write(block)
            whole.finish(oid, size)
        finally:
            whole.discard()
        shutil.rmtree(place, ignore_errors=True)

    def sweep(self, before: float | None = None) -> None:
        """Remove uploads that were given up: untouched since `before`, a day ago if not said."""
        limit = time.time() - STALE_SECONDS if before is None else before
        for entry in self.incoming.iterdir():
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(
                    missing_ok=True
                )
