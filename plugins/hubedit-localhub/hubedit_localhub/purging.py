"""Large files of a repository: where its history names them, and how they are removed for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pygit2
from pygit2.enums import FileMode, SortMode

from hubedit_localhub import discussions
from hubedit_localhub.durable import sync_objects
from hubedit_localhub.history import POINTER_SIZES, History, Pointer, parse_pointer
from hubedit_localhub.refs import new_objects, set_ref
from hubedit_localhub.store import Repo, Store


class Named(NamedTuple):
    """A large file as a commit names it."""

    path: str
    pointer: Pointer
    commit: pygit2.Commit


def _new_pointers(
    history: History, old: pygit2.Tree | None, new: pygit2.Tree, under: str = ""
) -> Iterator[tuple[str, Pointer]]:
    before = {item.name: item for item in old} if old is not None else {}
    for item in new:
        earlier = before.get(item.name)
        if earlier is not None and earlier.id == item.id:
            continue
        path = f"{under}{item.name}"
        if isinstance(item, pygit2.Tree):
            below = earlier if isinstance(earlier, pygit2.Tree) else None
            yield from _new_pointers(history, below, item, f"{path}/")
        elif isinstance(item, pygit2.Blob) and item.size in POINTER_SIZES:
            pointer = parse_pointer(item.data)
            if pointer:
                yield path, pointer


def _commits(history: History) -> list[pygit2.Commit]:
    """Return every commit that a branch, tag or pull request reaches, ancestors first."""
    git = history.git
    tips = [history.head(ref) for ref in git.references]
    heads = [tip.id for tip in tips if tip is not None]
    if not heads:
        return []
    walker = git.walk(heads[0], SortMode.TOPOLOGICAL | SortMode.REVERSE)
    for tip in heads[1:]:
        walker.push(tip)
    return list(walker)


def large_files(history: History) -> list[Named]:
    """Return each large file of the history once, where it first appeared."""
    found: dict[str, Named] = {}
    for commit in _commits(history):
        before = commit.parents[0].tree if commit.parent_ids else None
        for path, pointer in _new_pointers(history, before, commit.tree):
            found.setdefault(pointer.oid, Named(path, pointer, commit))
    return list(found.values())


def _without(history: History, tree: pygit2.Tree, oids: set[str]) -> pygit2.Oid:
    """Return the tree without the files whose content is among `oids`."""
    builder = history.git.TreeBuilder(tree)
    for item in tree:
        if isinstance(item, pygit2.Tree):
            kept = _without(history, item, oids)
            if kept != item.id:
                builder.remove(str(item.name))
                if len(history.git.TreeBuilder(kept)):
                    builder.insert(str(item.name), kept, FileMode.TREE)
        elif isinstance(item, pygit2.Blob) and item.size in POINTER_SIZES:
            pointer = parse_pointer(item.data)
            if pointer and pointer.oid in oids:
                builder.remove(str(item.name))
    return builder.write()


def _rewrite(history: History, oids: set[str]) -> None:
    """Replay all commits without the files; the caller holds the repository's lock."""
    git, renamed = history.git, dict[str, pygit2.Oid]()
    for commit in _commits(history):
        tree = _without(history, commit.tree, oids)
        parents = [renamed.get(str(parent), parent) for parent in commit.parent_ids]
        if tree == commit.tree.id and parents == list(commit.parent_ids):
            continue
        made = git.create_commit(
            None, commit.author, commit.committer, commit.message, tree, parents
        )
        renamed[str(commit.id)] = made
        rewritten = git[tree]
        assert isinstance(rewritten, pygit2.Tree)
        sync_objects(history.repo.path, [str(made), *new_objects(git, commit.tree, rewritten)])
    for num in discussions.numbers(history.repo):
        record = discussions.load(history.repo, num)
        if str(record.get("mergeCommitId")) in renamed:
            record["mergeCommitId"] = str(renamed[record["mergeCommitId"]])
            discussions.save(history.repo, record)
    for ref in list(git.references):
        head, target = history.head(ref), str(git.references[ref].target)
        if head is not None and str(head.id) in renamed:
            set_ref(git, ref, target, str(renamed[str(head.id)]))


def remove_large_files(store: Store, repo: Repo, oids: set[str], rewrite: bool) -> None:
    """Remove large files from a repository, and from the store if no other holds them.

    With `rewrite` every commit that named one is made again without it; otherwise history keeps
    the pointers and the files cannot be downloaded any more.
    """
    with repo.lock():
        if rewrite:
            _rewrite(History(repo), oids)
        repo.unlink(oids)
        held = {oid for oid in oids if store.holds(oid)}
    for oid in oids - held:
        store.objects.remove(oid)
