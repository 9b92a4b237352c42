"""A directory that appears finished or not at all, and what killed runs left on the way to it."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW, PARTIAL, OLD = ".new", ".partial", ".old"
"""Endings of a directory before it is held, while it is written, and once it is replaced."""


@contextmanager
def finished(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a working directory that becomes `target` by one rename, or vanishes.

    What runs that were killed on the way to the same target left behind is deleted first: their
    directories are known by the lock that ended with them.

    Args:
        target: where it appears. An empty directory there gives way.
        replace: whether a full one does too.

    Raises:
        OSError: it cannot be written there; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    name = f".{target.name}.{secrets.token_hex(4)}"
    fresh, work, old = (target.with_name(name + ending) for ending in (NEW, PARTIAL, OLD))
    held = -1
    try:
        fresh.mkdir(mode=0o700)
        held = os.open(fresh, os.O_RDONLY) if os.name == "posix" else -1
        _lock(held)
        fresh.replace(work)  # held before it has the name of one that may be swept
        yield work
        work.chmod(0o755)
        if target.exists() and replace:
            target.replace(old)
        elif target.exists():
            target.rmdir()
        try:
            work.replace(target)
        except BaseException:
            if old.exists():
                old.replace(target)
            raise
    finally:
        if held >= 0:
            os.close(held)
        for rest in (fresh, work, old):
            shutil.rmtree(rest, ignore_errors=True)


def sweep(target: Path) -> None:
    """Delete the unfinished directories on the way to `target` that no process holds."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        left = _is_left(path) if path.suffix == PARTIAL else path.suffix == OLD and target.exists()
        if left:
            shutil.rmtree(path, ignore_errors=True)


def _is_left(path: Path) -> bool:
    """Whether the process that made a directory is gone."""
    if os.name != "posix":
        return False
    try:
        held = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _lock(held)
    finally:
        os.close(held)


def _lock(held: int) -> bool:
    """Hold an open directory, if nobody else does; True where that worked."""
    try:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # no locks on this system, or somebody else has this one
        return False
    return True
