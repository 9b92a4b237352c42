"""Reading a repository: revisions, trees, files, commits, references."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pygit2
from pygit2.enums import SortMode

from hubedit_localhub.refusals import no_entry, no_revision
from hubedit_localhub.store import Repo

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n"
    rb"oid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n?"
)
_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
POINTER_SIZES = range(100, 201)
MAX_REF = 300


class Pointer(NamedTuple):
    """What a git blob says about a large file that lies elsewhere."""

    oid: str
    size: int

    def encode(self) -> bytes:
        """Return the blob."""
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n"
        ).encode()


def parse_pointer(data: bytes) -> Pointer | None:
    """Return the pointer a blob is, or None."""
    if len(data) not in POINTER_SIZES:
        return None
    found = _POINTER.fullmatch(data)
    return Pointer(found[1].decode(), int(found[2])) if found else None


class Entry(NamedTuple):
    """One file or directory of a tree; `size` is the real size in bytes, also of a large file."""

    path: str
    oid: str
    size: int
    pointer: Pointer | None
    pointer_size: int
    directory: bool = False


def iso(seconds: int) -> str:
    """Return a commit's time as the Hub writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def title(commit: pygit2.Commit) -> str:
    """Return the first line of the message."""
    return commit.message.split("\n", 1)[0].strip()


class History:
    """One opened repository, for one thread and one request."""

    def __init__(self, repo: Repo) -> None:
        self.repo, self.git = repo, repo.git()

    def head(self, ref: str) -> pygit2.Commit | None:
        """Return the commit a full reference name leads to, or None."""
        if len(ref) > MAX_REF or not pygit2.reference_is_valid_name(ref):
            return None
        found = self.git.references.get(ref)
        return found.peel(pygit2.Commit) if found else None

    def reached(self, ref: str, oid: str) -> bool:
        """Say whether a reference is at a commit or past it."""
        head = self.head(ref)
        if head is None or oid not in self.git:
            return False
        return str(head.id) == oid or self.git.descendant_of(head.id, oid)

    def resolve(self, revision: str) -> pygit2.Commit:
        """Return the commit of a branch, tag, `refs/…`, or hash of at least seven digits.

        Raises:
            Refusal: 404 `RevisionNotFound`.
        """
        commit = self._by_hash(revision) if _FULL.fullmatch(revision) else None
        if commit is None:
            commit = self._by_name(revision)
        if commit is None and _SHORT.fullmatch(revision):
            commit = self._by_hash(revision)
        if commit is None:
            raise no_revision(revision)
        return commit

    def _by_hash(self, digits: str) -> pygit2.Commit | None:
        try:
            found = self.git.get(digits)
        except ValueError:  # more than one object begins so
            return None
        return found if isinstance(found, pygit2.Commit) else None

    def _by_name(self, name: str) -> pygit2.Commit | None:
        if name.startswith("refs/"):
            return self.head(name)
        return self.head(f"refs/heads/{name}") or self.head(f"refs/tags/{name}")

    def entry(self, path: str, item: pygit2.Object) -> Entry:
        """Return what the tree holds at `path`."""
        oid = str(item.id)
        if not isinstance(item, pygit2.Blob):
            return Entry(path, oid, 0, None, 0, directory=isinstance(item, pygit2.Tree))
        size = item.size
        pointer = parse_pointer(item.data) if size in POINTER_SIZES else None
        if pointer and self.repo.links(pointer.oid):
            return Entry(path, oid, pointer.size, pointer, size)
        return Entry(path, oid, size, None, 0)

    def find(self, commit: pygit2.Commit, path: str) -> Entry | None:
        """Return the entry at `path`, or None; "" is the root directory."""
        try:
            item = commit.tree[path] if path else commit.tree
        except KeyError:
            return None
        return self.entry(path, item)

    def file(self, commit: pygit2.Commit, path: str) -> Entry:
        """Return the file at `path`.

        Raises:
            Refusal: 404 `EntryNotFound`, with the commit so that the client remembers the absence.
        """
        found = self.find(commit, path)
        if found is None or found.directory:
            raise no_entry(commit=str(commit.id))
        return found

    def walk(self, tree: pygit2.Tree, under: str, recursive: bool) -> Iterator[Entry]:
        """Yield the entries below a directory in the order of git."""
        for item in tree:
            path = f"{under}/{item.name}" if under else str(item.name)
            yield self.entry(path, item)
            if recursive and isinstance(item, pygit2.Tree):
                yield from self.walk(item, path, True)

    def text(self, commit: pygit2.Commit, path: str, limit: int = 1 << 20) -> str | None:
        """Return a small text file, or None if it is missing, large or not UTF-8."""
        found = self.find(commit, path)
        if found is None or found.directory or found.pointer or found.size > limit:
            return None
        try:
            return self.blob(found.oid).decode()
        except UnicodeDecodeError:
            return None

    def blob(self, oid: str) -> bytes:
        """Return the bytes of a git blob."""
        item = self.git[oid]
        assert isinstance(item, pygit2.Blob)
        return item.data

    def log(
        self, commit: pygit2.Commit, skip: int = 0, limit: int = 50
    ) -> tuple[list[pygit2.Commit], bool]:
        """Return a page of the ancestors, newest first, and whether there are more."""
        page: list[pygit2.Commit] = []
        for number, found in enumerate(
            self.git.walk(commit.id, SortMode.TOPOLOGICAL | SortMode.TIME)
        ):
            if number >= skip + limit:
                return page, True
            if number >= skip:
                page.append(found)
        return page, False

    def last_commits(self, commit: pygit2.Commit, paths: Iterable[str]) -> dict[str, pygit2.Commit]:
        """Return for each path the newest commit along first parents that changed it."""

        def state(of: pygit2.Commit, path: str) -> str | None:
            try:
                return str(of.tree[path].id)
            except KeyError:
                return None

        open_paths = {path: state(commit, path) for path in paths}
        found: dict[str, pygit2.Commit] = {}
        while open_paths:
            parent = commit.parents[0] if commit.parent_ids else None
            for path, wanted in list(open_paths.items()):
                if parent is None or state(parent, path) != wanted:
                    found[path] = commit
                    del open_paths[path]
            if parent is None:
                break
            commit = parent
        return found

    def refs(self, under: str) -> list[dict[str, Any]]:
        """Return the references below `refs/heads/`, `refs/tags/` or `refs/pr/`, sorted by name."""
        names = sorted(name for name in self.git.references if name.startswith(under))
        return [
            {"name": name[len(under) :], "ref": name, "targetCommit": str(head.id)}
            for name in names
            if (head := self.head(name)) is not None
        ]

    def is_large_by_name(self, commit: pygit2.Commit | None, path: str) -> bool:
        """Say whether `.gitattributes` sends files of that name to the LFS store."""
        if commit is None:
            return False
        check = pygit2.enums.AttrCheck
        flags = check.INDEX_ONLY | check.NO_SYSTEM | check.INCLUDE_COMMIT
        return self.git.get_attr(path, "filter", flags, commit.id) == "lfs"
