"""Writing a repository: a set of operations becomes one commit, if the branch has not moved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import pygit2
from pygit2.enums import FileMode

from hubedit_localhub.durable import sync_objects
from hubedit_localhub.history import History, Pointer
from hubedit_localhub.names import check_path
from hubedit_localhub.refs import move_ref, new_objects
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


class _Directory:
    """A directory being edited: git's own tree builder, and the directories opened below it."""

    def __init__(self, git: pygit2.Repository, tree: pygit2.Tree | None) -> None:
        self.git = git
        self.builder = git.TreeBuilder(tree) if tree is not None else git.TreeBuilder()
        self.below: dict[str, _Directory] = {}

    def at(self, name: str) -> pygit2.Object | None:
        return self.builder.get(name)

    def open(self, name: str) -> _Directory | None:
        """Return the directory below, or None if there is none of that name."""
        if name not in self.below:
            found = self.at(name)
            if not isinstance(found, pygit2.Tree):
                return None
            self.below[name] = _Directory(self.git, found)
        return self.below[name]

    def make(self, name: str) -> _Directory:
        """Return the directory below, made if it is missing."""
        found = self.open(name)
        if found is None:
            found = self.below[name] = _Directory(self.git, None)
        return found

    def remove(self, name: str) -> None:
        self.below.pop(name, None)
        if self.at(name) is not None:
            self.builder.remove(name)

    def prune(self) -> bool:
        """Forget directories that hold nothing any more; say whether this one holds something."""
        for name, child in list(self.below.items()):
            if not child.prune():
                self.remove(name)
        return bool(self.below) or len(self.builder) > 0

    def write(self) -> pygit2.Oid:
        for name, child in self.below.items():
            self.builder.insert(name, child.write(), FileMode.TREE)
        return self.builder.write()


def _drop(root: _Directory, drop: Drop) -> None:
    *folders, name = drop.path.rstrip("/").split("/")
    place: _Directory | None = root
    for folder in folders:
        place = place.open(folder) if place is not None else None
    found = place.at(name) if place is not None else None
    if place is None or found is None or (drop.folder and not isinstance(found, pygit2.Tree)):
        raise no_entry(NO_ENTRY)
    place.remove(name)


def _put(root: _Directory, put: Put) -> None:
    *folders, name = put.path.split("/")
    place = root
    clash = False
    for folder in folders:
        clash = clash or isinstance(place.at(folder), pygit2.Blob)
        place = place.make(folder)
    if clash or name in place.below or isinstance(place.at(name), pygit2.Tree):
        raise Refusal(
            422, f"{put.path} would be both a file and a folder; delete one of them first"
        )
    place.builder.insert(name, pygit2.Oid(hex=put.blob), FileMode.BLOB)


def edit_tree(
    history: History, tree: pygit2.Tree | None, operations: list[Operation]
) -> pygit2.Oid:
    """Return the tree after deletions, then additions; only directories that change are read.

    Raises:
        Refusal: 404 a path to delete is missing; 422 a file and a folder would share a name.
    """
    root = _Directory(history.git, tree)
    for operation in operations:
        if isinstance(operation, Drop):
            _drop(root, operation)
    root.prune()
    for operation in operations:
        if isinstance(operation, Put):
            _put(root, operation)
    return root.write()


def cover_large_files(
    history: History, head: pygit2.Commit, tree: pygit2.Oid, puts: list[Put]
) -> pygit2.Oid:
    """Return the tree, `.gitattributes` extended by large files whose names it does not cover.

    Then `git lfs` checks them out too.
    """
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
    before: Callable[[pygit2.Commit], None] | None = None,
    after: Callable[[], None] | None = None,
) -> pygit2.Commit:
    """Commit on `ref` and return the commit.

    The tree is built and forced to disk without the lock, on the head of the moment; under the
    lock the reference is moved only if that head still is the head. After a few lost tries the
    lock is held throughout, so that nobody starves. Under the lock `guard` may refuse, then
    `before` and `after` run on either side of the move.

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
            commit = history.git[made]
            assert isinstance(commit, pygit2.Commit)
            new = new_objects(history.git, head.tree, commit.tree)
            sync_objects(repo.path, [str(made), *new])
            inner: AbstractContextManager[None] = repo.lock() if free else nullcontext()
            with inner:
                # Opened anew: this view of the reference is not older than the lock.
                latest = History(repo)
                if latest.head(ref) != head:
                    continue
                if guard:
                    guard(latest)
                if before:
                    before(commit)
                if not move_ref(latest.git, ref, str(head.id), str(made)):
                    continue
                if after:
                    after()
                return commit
    raise Refusal(503, "another program holds this branch; try again")
