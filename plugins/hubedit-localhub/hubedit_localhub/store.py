"""The repositories of one root: where each lies, who may do what with it, its settings."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pygit2

from hubedit_localhub.accounts import Account, Accounts
from hubedit_localhub.durable import sync, sync_below
from hubedit_localhub.locks import locked, read_json, write_json
from hubedit_localhub.names import KINDS, check_repo_id, is_repo_id
from hubedit_localhub.objects import Objects
from hubedit_localhub.refusals import Refusal, no_repo

VISIBILITIES = ("public", "private")

_LFS = " filter=lfs diff=lfs merge=lfs -text\n"
_WEIGHTS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack "
    "*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors "
    "saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
_MEDIA = "*.png *.jpg *.jpeg *.gif *.bmp *.tiff *.webp *.wav *.flac *.mp3 *.ogg *.mp4 *.webm"
GITATTRIBUTES = "".join(pattern + _LFS for pattern in f"{_WEIGHTS} {_MEDIA}".split())


def now() -> str:
    """Return the time as the Hub writes it: ISO 8601, milliseconds, Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def signature(user: str) -> pygit2.Signature:
    """Return the author of what `user` commits now."""
    return pygit2.Signature(user, f"{user}@users.noreply.localhost")


class Repo(NamedTuple):
    """One repository: a bare git directory with its settings, discussions and LFS links inside.

    Args:
        kind: "models" or "datasets".
        id: `namespace/name`.
        path: the bare git directory.
    """

    kind: str
    id: str
    path: Path

    @property
    def type(self) -> str:
        """The kind in the singular, as bodies of requests have it."""
        return self.kind[:-1]

    @property
    def prefix(self) -> str:
        """What stands before the id in addresses: nothing for models."""
        return "" if self.kind == "models" else f"{self.kind}/"

    @property
    def namespace(self) -> str:
        """The user it belongs to."""
        return self.id.split("/")[0]

    def settings(self) -> dict[str, Any]:
        """Return what `hub.json` holds: `uid`, `private`, `gated`, `createdAt`."""
        found: dict[str, Any] = read_json(self.path / "hub.json")
        return found

    def change_settings(self, **changes: Any) -> None:
        """Store changed settings."""
        with self.lock():
            write_json(self.path / "hub.json", self.settings() | changes)

    def git(self) -> pygit2.Repository:
        """Open the git repository; the object is for one thread."""
        return pygit2.Repository(str(self.path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the repository against other writers; short work only."""
        return locked(self.path / "hub.lock")

    def _link(self, oid: str) -> Path:
        return self.path / "lfs" / oid[:2] / oid

    def links(self, oid: str) -> bool:
        """Say whether the large file belongs to this repository."""
        return self._link(oid).exists()

    def link(self, oid: str) -> None:
        """Make the large file belong to this repository."""
        link = self._link(oid)
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.touch()
            sync([link.parent, link.parent.parent])

    def readable_by(self, account: Account | None) -> bool:
        """Say whether `account` may read."""
        return not self.settings()["private"] or (
            account is not None and account.user == self.namespace
        )

    def writable_by(self, account: Account | None) -> bool:
        """Say whether `account` may write."""
        return account is not None and account.user == self.namespace and account.writes

    def need_writer(self, account: Account | None) -> Account:
        """Return the account if it may write here, else refuse as the Hub does."""
        if account is None:
            raise no_repo(known_user=False)
        if account.user != self.namespace:
            raise Refusal(403, "Forbidden: you do not have write access to this repository")
        if not account.writes:
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        return account


class Store:
    """Everything one root holds; several processes may have one open on the same root."""

    def __init__(self, root: Path, owner: str = "me") -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.accounts = Accounts(self.root, owner)
        self.objects = Objects(self.root / "lfs")
        self._trash = self.root / "trash"
        self._trash.mkdir(exist_ok=True)
        for kind in KINDS:
            (self.root / kind).mkdir(exist_ok=True)

    @cached_property
    def name(self) -> str:
        """A short name of this root that tells nothing about it."""
        return self.accounts.sign("root")[:16]

    def _place(self, kind: str, repo_id: str) -> Path:
        namespace, name = repo_id.split("/")
        return self.root / kind / namespace / f"{name}.git"

    def find(self, kind: str, repo_id: str) -> Repo | None:
        """Return the repository, or None."""
        if not is_repo_id(repo_id):
            return None
        repo = Repo(kind, repo_id, self._place(kind, repo_id))
        return repo if (repo.path / "hub.json").exists() else None

    def get(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """Return the repository, or refuse in the same words whether it is missing or hidden."""
        repo = self.find(kind, repo_id)
        if repo is None or not repo.readable_by(account):
            raise no_repo(account is not None)
        return repo

    def all(self, kind: str) -> Iterator[Repo]:
        """Yield the repositories of a kind in the order of their ids."""
        for path in sorted((self.root / kind).glob("*/*.git")):
            repo = Repo(kind, f"{path.parent.name}/{path.name[:-4]}", path)
            if (path / "hub.json").exists():
                yield repo

    def create(self, kind: str, repo_id: str, account: Account, private: bool) -> Repo:
        """Create a repository with `.gitattributes` in it; refuse with 409 if it exists."""
        repo = Repo(kind, check_repo_id(repo_id), self._place(kind, repo_id))
        building = self._trash / secrets.token_hex(16)
        git = pygit2.init_repository(str(building), bare=True, initial_head="main")
        index = pygit2.Index()
        blob = git.create_blob(GITATTRIBUTES.encode())
        index.add(pygit2.IndexEntry(".gitattributes", blob, pygit2.enums.FileMode.BLOB))
        author = signature(account.user)
        git.create_commit(
            "refs/heads/main", author, author, "initial commit", index.write_tree(git), []
        )
        uid = secrets.token_hex(12)
        write_json(
            building / "hub.json",
            {"uid": uid, "private": private, "gated": False, "createdAt": now()},
        )
        (building / "discussions").mkdir()
        (building / "lfs").mkdir()
        sync_below(building)
        try:
            with locked(self.root / "store.lock"):
                self._install(building, repo)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return repo

    def _need_free(self, repo: Repo) -> None:
        if repo.path.exists():
            raise Refusal(409, f"You already created this {repo.type} repo")

    def _install(self, building: Path, repo: Repo) -> None:
        self._need_free(repo)
        repo.path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(building, repo.path)
        sync([repo.path.parent, repo.path.parent.parent])
        with suppress(FileNotFoundError):
            self._forwarding(repo.kind, repo.id).unlink()

    def delete(self, repo: Repo) -> None:
        """Remove the repository; its large files stay where others hold them too."""
        gone = self._trash / secrets.token_hex(16)
        with locked(self.root / "store.lock"), repo.lock():
            os.rename(repo.path, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def move(self, repo: Repo, to_id: str) -> Repo:
        """Rename the repository; the old address leads to it until the name is used again."""
        moved = Repo(repo.kind, check_repo_id(to_id), self._place(repo.kind, to_id))
        with locked(self.root / "store.lock"), repo.lock():
            self._need_free(moved)
            # Written first: while the old name is in use, nobody looks at it.
            write_json(self._forwarding(repo.kind, repo.id), {"to": to_id, "at": int(time.time())})
            self._install(repo.path, moved)
        return moved

    def _forwarding(self, kind: str, repo_id: str) -> Path:
        return self.root / kind / repo_id.replace("/", "--moved--")

    def moved_to(self, kind: str, repo_id: str) -> str | None:
        """Return where a repository that was once called `repo_id` is now, or None."""
        seen: set[str] = set()
        while is_repo_id(repo_id) and repo_id not in seen and self.find(kind, repo_id) is None:
            seen.add(repo_id)
            try:
                repo_id = read_json(self._forwarding(kind, repo_id))["to"]
            except FileNotFoundError:
                return None
        return repo_id if seen and self.find(kind, repo_id) is not None else None

    def sees_object(self, oid: str, repo: Repo, account: Account) -> bool:
        """Say whether `account` may put a stored large file into `repo` without sending it.

        Knowing a hash is not enough: some repository that the account may read must hold the file.
        """
        if self.objects.size(oid) is None:
            return False
        return repo.links(oid) or any(
            other.links(oid) and other.readable_by(account)
            for kind in KINDS
            for other in self.all(kind)
        )
