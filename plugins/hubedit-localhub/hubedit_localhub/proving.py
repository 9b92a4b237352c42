"""`hub fsck`: whatever a reference, record or pointer reaches is there and has its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pygit2

from hubedit_localhub import discussions
from hubedit_localhub.history import POINTER_SIZES, History, Pointer, parse_pointer
from hubedit_localhub.names import KINDS
from hubedit_localhub.pulls import ref_of
from hubedit_localhub.refusals import Refusal
from hubedit_localhub.store import Repo, Store

_BLOCK = 1 << 20
_TYPES = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}


@dataclass
class Proof:
    """What was looked at, and one sentence for each thing that is wrong."""

    repositories: int = 0
    references: int = 0
    git_objects: int = 0
    large_files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


class _Reader:
    """Reads the objects of one repository, each once, and recomputes its SHA-1."""

    def __init__(self, git: pygit2.Repository, name: str, proof: Proof) -> None:
        self.git, self.name, self.proof = git, name, proof
        self.seen: set[str] = set()
        self.pointers: dict[str, Pointer] = {}

    def follow(self, start: str, why: str) -> None:
        """Read everything that an object reaches."""
        waiting = [(start, why)]
        while waiting:
            oid, why = waiting.pop()
            if oid in self.seen:
                continue
            self.seen.add(oid)
            waiting += [(below, f"{why} → {oid[:12]}") for below in self._read(oid, why)]

    def _read(self, oid: str, why: str) -> Iterator[str]:
        try:
            kind, data = self.git.read(oid)
        except (KeyError, ValueError, pygit2.GitError) as error:
            self.proof.problems.append(f"{self.name}: object {oid} ({why}): {error}")
            return
        self.proof.git_objects += 1
        header = _TYPES[int(kind)] + f" {len(data)}\0".encode()
        if hashlib.sha1(header + data, usedforsecurity=False).hexdigest() != oid:
            self.proof.problems.append(f"{self.name}: object {oid} ({why}) has another hash")
            return
        if _TYPES[int(kind)] == b"blob":
            pointer = parse_pointer(data) if len(data) in POINTER_SIZES else None
            if pointer:
                self.pointers[pointer.oid] = pointer
            return
        found = self.git[oid]
        if isinstance(found, pygit2.Commit):
            yield str(found.tree_id)
            yield from map(str, found.parent_ids)
        elif isinstance(found, pygit2.Tree):
            yield from (str(item.id) for item in found)
        elif isinstance(found, pygit2.Tag):
            yield str(found.target)


def _prove_discussions(repo: Repo, history: History, reader: _Reader, proof: Proof) -> None:
    for num in discussions.numbers(repo):
        place = f"{reader.name}#{num}"
        try:
            record = discussions.load(repo, num)
            events = [event for event in record["events"] if event["type"] == "commit"]
            pull, merged = record["isPullRequest"], record.get("mergeCommitId")
        except Refusal:
            continue
        except (ValueError, KeyError, TypeError) as error:
            proof.problems.append(f"{place}: the record cannot be read ({error!r})")
            continue
        if pull and history.head(ref_of(num)) is None:
            proof.problems.append(f"{place}: a pull request without {ref_of(num)}")
        if record["status"] == "merged" and not merged:
            proof.problems.append(f"{place}: merged, and no commit is named")
        for oid in [event["data"]["oid"] for event in events] + ([merged] if merged else []):
            reader.follow(str(oid), f"named by #{num}")


def _prove_repository(store: Store, repo: Repo, known: dict[str, str], proof: Proof) -> None:
    name = f"{repo.prefix}{repo.id}"
    proof.repositories += 1
    history = History(repo)
    reader = _Reader(history.git, name, proof)
    if history.head("refs/heads/main") is None:
        proof.problems.append(f"{name}: no branch main")
    for ref in list(history.git.references):
        proof.references += 1
        reader.follow(str(history.git.references[ref].target), ref)
    _prove_discussions(repo, history, reader, proof)
    for oid, pointer in sorted(reader.pointers.items()):
        if not repo.links(oid):
            if oid not in repo.settings().get("removed", ()):
                proof.problems.append(f"{name}: large file {oid} does not belong to it any more")
            continue
        if oid not in known:
            known[oid] = _prove_file(store, pointer, proof)
        if known[oid]:
            proof.problems.append(f"{name}: large file {oid} {known[oid]}")


def _prove_file(store: Store, pointer: Pointer, proof: Proof) -> str:
    try:
        digest, size = _digest(store.objects.path(pointer.oid))
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    proof.large_files += 1
    proof.bytes += size
    if digest != pointer.oid:
        return f"has other content (sha256 {digest})"
    return "" if size == pointer.size else f"has {size} bytes, not {pointer.size}"


def prove(store: Store) -> Proof:
    """Read everything that is reachable, and return what was found.

    Looked at are all references, the commits that pull requests name, and every large file that a
    reachable commit points to, each hashed once.
    """
    proof, known = Proof(), dict[str, str]()
    for kind in KINDS:
        for repo in store.all(kind):
            try:
                _prove_repository(store, repo, known, proof)
            except (FileNotFoundError, pygit2.GitError) as error:
                if store.find(kind, repo.id) is not None:  # not deleted meanwhile
                    proof.problems.append(f"{repo.prefix}{repo.id}: {error}")
    return proof
