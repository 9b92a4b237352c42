"""SHA-256 of files: in parallel, and remembered while a file does not change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SETTLED_NS = 2_000_000_000
"""A file changed this recently may change again within the resolution of its clock."""

Stamp = list[int]


def sha256_file(path: Path | str, cache: Path | str | None = None) -> str:
    """Digest (hex) of a file's content; see `sha256_files`."""
    path = Path(path)
    return sha256_files([path], cache)[path]


def sha256_files(
    paths: Iterable[Path], cache: Path | str | None = None, workers: int | None = None
) -> dict[Path, str]:
    """Digests (hex) of files, by the paths as they were given.

    Args:
        paths: the files; symbolic links are followed.
        cache: a JSON file of what is known, keyed by the real path and its size, modification time
            and inode; read and brought up to date. A damaged one is ignored.
        workers: how many files are read at a time; by default one for each core.

    Raises:
        OSError: a file cannot be read.
    """
    known = _read_cache(cache)
    wanted = {path: os.path.realpath(path) for path in paths}
    stamps = {real: _stamp(real) for real in set(wanted.values())}
    digests = {
        real: str(known[real][1])
        for real in stamps
        if real in known and known[real][0] == stamps[real]
    }
    missing = sorted(stamps.keys() - digests.keys(), key=lambda real: -stamps[real][0])
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        fresh = dict(zip(missing, pool.map(_digest, missing), strict=True))
    if cache is not None and fresh:
        now = time.time_ns()
        settled = {
            real: (stamps[real], digest)
            for real, digest in fresh.items()
            if now - stamps[real][1] > _SETTLED_NS and _stamp(real) == stamps[real]
        }
        if settled:
            _write_cache(Path(cache), {**_read_cache(cache), **settled})
    return {path: (digests | fresh)[real] for path, real in wanted.items()}


def _stamp(real: str) -> Stamp:
    status = os.stat(real)
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _digest(real: str) -> str:
    with open(real, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_cache(cache: Path | str | None) -> dict[str, tuple[Stamp, str]]:
    if cache is None:
        return {}
    try:
        stored = json.loads(Path(cache).read_text(encoding="utf-8"))
        return {str(real): (list(stamp), str(digest)) for real, (stamp, digest) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(cache: Path, known: dict[str, tuple[Stamp, str]]) -> None:
    kept = {real: value for real, value in sorted(known.items()) if os.path.exists(real)}
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f".{cache.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(kept, indent=0), encoding="utf-8")
    partial.replace(cache)
