"""The content-addressed store of what is costly to compute and reusable: statistics, editors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock


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


class ArtifactStore:
    """Finished directories by the SHA-256 of the key that says what is in them.

    An unfinished build lives beside the finished ones and is taken up again by the next run; it
    becomes visible by one rename.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_home() / "artifacts"

    @staticmethod
    def address(key: Mapping[str, Any]) -> str:
        """The name under which `key` is stored: 64 hex digits."""
        return hashlib.sha256(canonical_json(dict(key))).hexdigest()

    def get(self, key: Mapping[str, Any]) -> Path | None:
        """Return the finished directory stored under `key`, or None."""
        path = self.root / self.address(key)
        return path if (path / "key.json").is_file() else None

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
            work.mkdir(parents=True, exist_ok=True)
            build(work)
            (work / "key.json").write_bytes(
                json.dumps(dict(key), sort_keys=True, indent=1).encode()
            )
            os.replace(work, self.root / address)
        return self.root / address
