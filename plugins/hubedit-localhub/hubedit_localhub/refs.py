"""Git references moved by compare-and-swap, and the objects they will need found first."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pygit2

from hubedit_localhub.durable import sync
from hubedit_localhub.refusals import Refusal

STALE_LOCK_SECONDS = 0.5


def new_objects(git: pygit2.Repository, old: pygit2.Tree | None, new: pygit2.Tree) -> Iterator[str]:
    """Yield the ids of the trees and blobs of `new` that `old` does not hold at the same place."""
    if old is not None and old.id == new.id:
        return
    yield str(new.id)
    before = {item.name: item for item in old} if old is not None else {}
    for item in new:
        earlier = before.get(item.name)
        if earlier is not None and earlier.id == item.id:
            continue
        if isinstance(item, pygit2.Tree):
            yield from new_objects(git, earlier if isinstance(earlier, pygit2.Tree) else None, item)
        else:
            yield str(item.id)


def clear_stale_locks(git_directory: Path, ref: str) -> None:
    """Remove what a killed writer left; git itself would wait for it for ever.

    The caller holds the repository's own lock, so a lock file is a dead writer's or a foreign
    git's, which holds it for milliseconds.
    """
    for lock in (git_directory / f"{ref}.lock", git_directory / "packed-refs.lock"):
        with suppress(FileNotFoundError):
            while time.time() - lock.stat().st_mtime < STALE_LOCK_SECONDS:
                time.sleep(0.02)
            lock.unlink()


def _value(git: pygit2.Repository, ref: str) -> str | None:
    found = git.references.get(ref)
    return str(found.target) if found is not None else None


def _remove_empty(directory: Path) -> None:
    if directory.is_dir():
        for below in sorted(directory.rglob("*"), reverse=True):
            below.rmdir()
        directory.rmdir()


def move_ref(git: pygit2.Repository, ref: str, old: str | None, new: str) -> bool:
    """Point `ref` at `new` if it is still at `old` (None: not there); say whether it was.

    The protocol is git's own (a `.lock` file beside the reference, renamed over it), so that a
    reader sees the old value or the new one, whenever the power fails. The caller holds the
    repository's lock.
    """
    directory = Path(git.path)
    target = directory / ref
    lock = target.with_name(f"{target.name}.lock")
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_stale_locks(directory, ref)
    try:
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            moved = _value(git, ref) == old
            if moved:
                file.write(f"{new}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        if moved:
            _remove_empty(target)  # of branches `ref/…` that are gone
            os.replace(lock, target)
            sync([target.parent])
        return moved
    finally:
        lock.unlink(missing_ok=True)


def set_ref(git: pygit2.Repository, ref: str, old: str | None, new: str) -> None:
    """Point `ref` at `new`, or refuse with 503 if another program moves it meanwhile."""
    if not move_ref(git, ref, old, new):
        raise Refusal(503, f"another program holds {ref}; try again")
