"""A directory that appears finished or not at all, and what killed runs left on the way to it."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL, OLD = ".partial", ".old"
"""Endings of a directory while it is written, and once it is replaced."""


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
    work, old = (target.with_name(name + ending) for ending in (PARTIAL, OLD))
    held = -1
    try:
        held = _made(work)
        yield work
        work.chmod(0o755)
        if replace:
            _replace(work, target, old)
        else:
            with suppress(FileNotFoundError):
                target.rmdir()
            work.replace(target)
    finally:
        if held >= 0:
            os.close(held)
        for rest in (work, old):
            shutil.rmtree(rest, ignore_errors=True)


def _replace(work: Path, target: Path, old: Path) -> None:
    """Put a directory in the place of another, which others may do at the same time."""
    while True:
        with suppress(FileNotFoundError):
            target.replace(old)
        try:
            work.replace(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                shutil.rmtree(old, ignore_errors=True)
                continue
            if old.exists():
                old.replace(target)
            raise
        return


def sweep(target: Path) -> None:
    """Delete the unfinished directories on the way to `target` that no process holds."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if path.suffix == PARTIAL:
            _delete_left(path)
        elif path.suffix == OLD and target.exists():
            shutil.rmtree(path, ignore_errors=True)


def _made(work: Path) -> int:
    """Make a directory and hold it; the descriptor that does, or -1 where none can.

    A sweep may come between the two and take the directory for one that is left: then again.
    """
    for _ in range(20):
        with suppress(FileExistsError):  # swept while it was looked at
            work.mkdir(mode=0o700, exist_ok=True)
        if os.name != "posix":
            return -1
        held = -1
        with suppress(FileNotFoundError):
            held = os.open(work, os.O_RDONLY)
            if _lock(held) and os.path.samestat(os.fstat(held), work.stat()):
                return held
        if held >= 0:
            os.close(held)
    return -1


def _delete_left(path: Path) -> None:
    """Delete a directory if the process that made it is gone; nobody else may hold it meanwhile."""
    if os.name != "posix":
        return
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        if _lock(held):
            shutil.rmtree(path, ignore_errors=True)
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
