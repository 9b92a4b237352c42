"""The content-addressed store of what is costly to compute and reusable: statistics, editors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hubedit.secret import keyed


def cache_home() -> Path:
    """Where hubedit keeps things: `$HUBEDIT_HOME`, else the user's cache directory."""
    chosen = os.environ.get("HUBEDIT_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("hubedit", appauthor=False))


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and no escapes beyond need, as UTF-8 bytes."""
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8")


KEY = "key.json"
ABOUT = "about.json"
"""What people call that which an artifact was made of; no part of its address."""


STALE = 7.0
"""Days after which unfinished work is taken for forgotten."""


@dataclass(frozen=True)
class Held:
    """One directory of the store: its address, its key, and whether it is finished."""

    address: str
    path: Path
    key: Mapping[str, Any]
    finished: bool

    def facts(self, name: str) -> dict[str, Any]:
        """What a small JSON file of it says; empty if there is none."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def nbytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())


class ArtifactStore:
    """Finished directories by the SHA-256 of the key that says what is in them.

    An unfinished build lives beside the finished ones and is taken up again by the next run; it
    becomes visible by one rename.

    Args:
        root: the directory; by default `artifacts` below `cache_home()`.
        elsewhere: is asked for what is not here before it is built: given an address and an empty
            directory, it puts the checked files there and says whether it had them.
    """

    def __init__(
        self, root: Path | None = None, elsewhere: Callable[[str, Path], bool] | None = None
    ) -> None:
        self.root = root or cache_home() / "artifacts"
        self.elsewhere = elsewhere

    @staticmethod
    def address(key: Mapping[str, Any]) -> str:
        """The name under which `key` is stored: 64 hex digits."""
        return hashlib.sha256(canonical_json(dict(key))).hexdigest()

    def get(self, key: Mapping[str, Any]) -> Path | None:
        """Return the finished directory stored under `key`, or None."""
        path = self.root / self.address(key)
        return path if (path / KEY).is_file() else None

    def make(self, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the directory stored under `key`, building it first if it is not there."""
        done = self.get(key)
        if done is not None:
            return done
        address = self.address(key)
        work = self.root / f"{address}.partial"
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{address}.lock"):
            done = self.get(key)
            if done is not None:
                return done
            if self.elsewhere is not None and self._fetched(address, self.elsewhere):
                shutil.rmtree(work, ignore_errors=True)
                return self.root / address
            work.mkdir(parents=True, exist_ok=True)
            (work / KEY).write_bytes(json.dumps(dict(key), sort_keys=True, indent=1).encode())
            build(work)
            os.replace(work, self.root / address)
        return self.root / address

    def _fetched(self, address: str, elsewhere: Callable[[str, Path], bool]) -> bool:
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".fetching-") as scratch:
            fetched = Path(scratch, "files")
            fetched.mkdir()
            if not elsewhere(address, fetched):
                return False
            os.replace(fetched, self.root / address)
        return True

    def take(self, address: str, fetch: Callable[[str, Path], bool]) -> bool:
        """Put checked files under their address; False if they are there, or not to be had.

        Args:
            address: of the artifact.
            fetch: as `elsewhere`.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{address}.lock"):
            here = (self.root / address / KEY).is_file()
            return not here and self._fetched(address, fetch)

    def held(self, kind: str) -> Iterator[Held]:
        """What the store holds of one kind, finished or begun, by address."""
        for path in sorted(self.root.glob(f"*/{KEY}")):
            address, _, unfinished = path.parent.name.partition(".")
            try:
                key = json.loads(path.read_bytes())
            except ValueError:
                continue
            if isinstance(key, dict) and key.get("kind") == kind:
                yield Held(address, path.parent, key, not unfinished)

    @contextmanager
    def workspace(self, key: Mapping[str, Any]) -> Iterator[Path]:
        """A directory for unfinished work under `key`; gone once the `with` ends well.

        One run has it at a time, and its user alone can read it. The key is not written, and the
        directory is named by a hash of it under this machine's secret: the key may hold a digest
        of what is to be forgotten, which a plain hash would let others guess at.
        """
        address = keyed(cache_home(), canonical_json(dict(key)))
        work = self.root / f"{address}.work"
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self.root / f"{address}.lock"
        with FileLock(lock):
            work.mkdir(mode=0o700, exist_ok=True)
            work.chmod(0o700)
            yield work
            shutil.rmtree(work)
            _drop(lock)

    def sweep(self, days: float = STALE) -> None:
        """Delete unfinished work that no run holds and none has touched for so many days.

        Locks without any work beside them go too.
        """
        for work in self.root.glob("*.work"):
            with suppress(OSError, Timeout):
                touched = max(path.stat().st_mtime for path in (work, *work.iterdir()))
                if touched < time.time() - days * 86400:
                    with FileLock(work.with_suffix(".lock"), timeout=0):
                        shutil.rmtree(work)
        for lock in self.root.glob("*.lock"):
            with suppress(OSError, Timeout), FileLock(lock, timeout=0):
                if not any(lock.with_suffix(end).exists() for end in (".work", ".partial")):
                    _drop(lock)


def _drop(lock: Path) -> None:
    """Delete a lock that is held here; who waits for it takes a new one (not on Windows)."""
    with suppress(OSError):
        lock.unlink()
