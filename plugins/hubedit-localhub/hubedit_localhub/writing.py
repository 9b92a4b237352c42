"""Writing a repository: a set of operations becomes one commit, if the branch has not moved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import pygit2
from pygit2.enums import FileMode

from hubedit_localhub.history import History, Pointer
from hubedit_localhub.names import check_path
from hubedit_localhub.refusals import LOST_RACE, NO_ENTRY, Refusal, no_entry, no_revision
from hubedit_localhub.store import Repo, signature

FREE_TRIES = 4
_ESCAPES = str.maketrans(
    {" ": "[[:space:]]", "[": "\\[", "]": "\\]", "*": "\\*", "?": "\\?", "\\": "\\\\"}
)


class Put(NamedTuple):
    """A file is added or replaced; `pointer` if the blob stands for a large file."""

    path: str
    blob: str
    pointer: Pointer | None = None


class Drop(NamedTuple):
    """A file, or everything below a folder, is deleted."""

    path: str
    folder: bool


Operation = Put | Drop
BuildTree = Callable[[History, pygit2.Commit], pygit2.Oid]


def _directories(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _drop(index: pygit2.Index, drop: Drop) -> None:
    prefix = drop.path.rstrip("/")
    if prefix in index and not drop.folder:
        index.remove(prefix)
        return
    below = [entry.path for entry in index if entry.path.startswith(prefix + "/")]
    if not below:
        raise no_entry(NO_ENTRY)
    for path in below:
        index.remove(path)


def edit_tree(
    history: History, tree: pygit2.Tree | None, operations: list[Operation]
) -> pygit2.Oid:
    """Return the tree after deletions, then additions.

    A large file whose name `.gitattributes` does not cover gets a line there, so that `git lfs`
    checks it out too.

    Raises:
        Refusal: 404 a path to delete is missing; 422 a file and a folder would share a name.
    """
    index = pygit2.Index()
    if tree is not None:
        index.read_tree(tree)
    for operation in operations:
        if isinstance(operation, Drop):
            _drop(index, operation)
    puts = [operation for operation in operations if isinstance(operation, Put)]
    files = {entry.path for entry in index} | {put.path for put in puts}
    folders = {folder for path in files for folder in _directories(path)}
    for put in puts:
        if put.path in folders or any(folder in files for folder in _directories(put.path)):
            raise Refusal(
                422, f"{put.path} would be both a file and a folder; delete one of them first"
            )
        index.add(pygit2.IndexEntry(put.path, pygit2.Oid(hex=put.blob), FileMode.BLOB))
    return index.write_tree(history.git)


def cover_large_files(
    history: History, head: pygit2.Commit, tree: pygit2.Oid, puts: list[Put]
) -> pygit2.Oid:
    """Return the tree, `.gitattributes` extended by large files whose names it does not cover."""
    if all(put.pointer is None or history.is_large_by_name(head, put.path) for put in puts):
        return tree
    author = signature("localhub")
    # Attributes are read from a commit; this one is never referred to.
    probe = history.git[history.git.create_commit(None, author, author, "", tree, [])]
    assert isinstance(probe, pygit2.Commit)
    bare = [p.path for p in puts if p.pointer and not history.is_large_by_name(probe, p.path)]
    if not bare:
        return tree
    before = history.text(probe, ".gitattributes") or ""
    lines = "".join(
        f"{path.translate(_ESCAPES)} filter=lfs diff=lfs merge=lfs -text\n" for path in bare
    )
    text = before + ("" if before.endswith("\n") or not before else "\n") + lines
    blob = history.git.create_blob(text.encode())
    return edit_tree(history, probe.tree, [Put(".gitattributes", str(blob))])


def check_parent(parent: str | None, head: pygit2.Commit) -> None:
    """Refuse with 412 if `parent`, in full or its first digits, is not the head."""
    if parent and not str(head.id).startswith(parent.lower()):
        raise Refusal(412, LOST_RACE)


def operations_builder(operations: list[Operation]) -> BuildTree:
    """Return the function that applies `operations` to whatever the head turns out to be."""
    for operation in operations:
        check_path(operation.path.rstrip("/"))

    def build(history: History, head: pygit2.Commit) -> pygit2.Oid:
        tree = edit_tree(history, head.tree, operations)
        return cover_large_files(
            history, head, tree, [op for op in operations if isinstance(op, Put)]
        )

    return build


def commit_to(
    repo: Repo,
    ref: str,
    user: str,
    message: str | Callable[[pygit2.Commit], str],
    build: BuildTree,
    parent: str | None = None,
    guard: Callable[[History], None] | None = None,
    landed: Callable[[History, pygit2.Commit], None] | None = None,
) -> pygit2.Commit:
    """Commit on `ref` and return the commit.

    The tree is built without the lock on the head of the moment; under the lock the reference is
    moved only if that head still is the head. After a few lost tries the lock is held throughout,
    so that nobody starves. Under the lock `guard` runs before the reference moves and may refuse,
    `landed` runs after it.

    Raises:
        Refusal: 404 no such reference; 412 `parent` is not the head.
    """
    author = signature(user)
    for attempt in range(FREE_TRIES + 1):
        free = attempt < FREE_TRIES
        outer: AbstractContextManager[None] = nullcontext() if free else repo.lock()
        with outer:
            history = History(repo)
            head = history.head(ref)
            if head is None:
                raise no_revision(ref.removeprefix("refs/heads/"))
            check_parent(parent, head)
            tree = build(history, head)
            text = message(head) if callable(message) else message
            made = history.git.create_commit(None, author, author, text, tree, [head.id])
            inner: AbstractContextManager[None] = repo.lock() if free else nullcontext()
            with inner:
                # Opened anew: this view of the reference is not older than the lock.
                latest = History(repo)
                if latest.head(ref) != head:
                    continue
                if guard:
                    guard(latest)
                latest.git.references[ref].set_target(made)
                commit = latest.git[made]
                assert isinstance(commit, pygit2.Commit)
                if landed:
                    landed(latest, commit)
                return commit
    raise AssertionError("the last try holds the lock")
