"""What must outlive a power cut: files and directories forced to disk, many at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(16, "sync")


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(paths: Iterable[Path]) -> None:
    """Force files and directories to disk; those that are not there are left out.

    They go at once: a journalling file system then writes its journal once or twice, not each time.
    """
    wanted = list(dict.fromkeys(paths))
    if len(wanted) == 1:
        _sync(wanted[0])
    elif wanted:
        list(_pool().map(_sync, wanted))


def sync_below(root: Path) -> None:
    """Force a whole directory to disk."""
    sync([root, *root.rglob("*")])


def sync_objects(git_directory: Path, oids: Iterable[str]) -> None:
    """Force loose git objects and the directories that name them to disk."""
    objects = git_directory / "objects"
    files = [objects / oid[:2] / oid[2:] for oid in oids]
    sync([objects, *files, *(file.parent for file in files)])
