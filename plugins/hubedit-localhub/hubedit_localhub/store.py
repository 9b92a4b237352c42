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
from hubedit_localhub.objects import STALE_SECONDS, Objects
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


def _new_settings(private: bool) -> dict[str, Any]:
    uid = secrets.token_hex(12)
    return {"uid": uid, "private": private, "gated": False, "createdAt": now()}


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

    def members(self) -> dict[str, str]:
        """Return who besides the owner has access, and whether to "read" or "write"."""
        found: dict[str, str] = self.settings().get("members", {})
        return found

    def change_member(self, user: str, role: str | None) -> None:
        """Give `user` the role "read" or "write" here, or none."""
        with self.lock():
            kept = self.settings()
            members = {name: held for name, held in self.members().items() if name != user}
            if role:
                members[user] = role
            write_json(self.path / "hub.json", kept | {"members": members})

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

    def unlink(self, oids: set[str]) -> None:
        """Let large files belong to this repository no more; the caller holds the lock."""
        kept = self.settings()
        removed = sorted({*kept.get("removed", ()), *oids})
        write_json(self.path / "hub.json", kept | {"removed": removed})
        for oid in oids:
            self._link(oid).unlink(missing_ok=True)

    def role_of(self, account: Account | None) -> str | None:
        """Return "owner", "write" or "read" as granted to the account, or None."""
        if account is None:
            return None
        if account.user == self.namespace:
            return "owner"
        return self.members().get(account.user)

    def readable_by(self, account: Account | None) -> bool:
        """Say whether `account` may know of the repository."""
        return not self.settings()["private"] or self.role_of(account) is not None

    def writable_by(self, account: Account | None) -> bool:
        """Say whether `account` may write."""
        return (
            account is not None and account.writes and self.role_of(account) in ("owner", "write")
        )

    def opens_to(self, account: Account | None) -> bool:
        """Say whether `account` may read the files."""
        kept = self.settings()
        return not (kept["private"] or kept["gated"]) or self.role_of(account) is not None

    def need_file_reader(self, account: Account | None) -> None:
        """Refuse as the Hub does if the files are for named people only and this is none."""
        if self.opens_to(account):
            return
        start = f"Access to {self.type} {self.id} is restricted"
        if account is None:
            how = "You must have access to it and be authenticated to access it. Please log in."
            raise Refusal(401, f"{start}. {how}", "GatedRepo")
        how = f"Ask {self.namespace} for access."
        raise Refusal(403, f"{start} and you are not in the authorized list. {how}", "GatedRepo")

    def need_writer(self, account: Account | None, owner: bool = False) -> Account:
        """Return the account if it may write here (and owns it, if asked), else refuse."""
        if account is None:
            raise no_repo(known_user=False)
        if self.role_of(account) not in (("owner",) if owner else ("owner", "write")):
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

    def sweep(self) -> None:
        """Remove what killed servers left a day ago: uploads, repositories half made or deleted."""
        self.objects.sweep()
        for entry in self._trash.iterdir():
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < time.time() - STALE_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True)

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

    def same_but_for_case(self, kind: str, repo_id: str) -> str | None:
        """Return the id of the repository that is called so but for the case of letters."""
        wanted = repo_id.lower()
        return next((repo.id for repo in self.all(kind) if repo.id.lower() == wanted), None)

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
        write_json(building / "hub.json", _new_settings(private))
        (building / "discussions").mkdir()
        (building / "lfs").mkdir()
        try:
            self._install_new(building, repo)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return repo

    def _install_new(self, building: Path, repo: Repo) -> None:
        sync_below(building)
        with locked(self.root / "store.lock"):
            self._need_free(repo)
            self._install(building, repo)

    def duplicate(self, repo: Repo, to_id: str, private: bool) -> Repo:
        """Copy a repository's branches, tags and files; large files are shared, not copied."""
        copy = Repo(repo.kind, check_repo_id(to_id), self._place(repo.kind, to_id))
        building = self._trash / secrets.token_hex(16)
        own = {str(repo.path): ["discussions", "hub.json"], str(repo.path / "refs"): ["pr"]}

        def left_out(directory: str, names: list[str]) -> list[str]:
            passing = [name for name in names if name.startswith("tmp_") or name.endswith(".lock")]
            return own.get(directory, []) + passing

        try:
            with repo.lock():
                shutil.copytree(repo.path, building, ignore=left_out)
            (building / "discussions").mkdir()
            write_json(building / "hub.json", _new_settings(private))
            self._install_new(building, copy)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return copy

    def _need_free(self, repo: Repo) -> None:
        if repo.path.exists() or self.same_but_for_case(repo.kind, repo.id):
            raise Refusal(409, f"You already created this {repo.type} repo")

    def _install(self, building: Path, repo: Repo) -> None:
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
            if to_id.lower() != repo.id.lower():
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

    def holds(self, oid: str) -> bool:
        """Say whether any repository holds the large file."""
        return any(repo.links(oid) for kind in KINDS for repo in self.all(kind))

    def sees_object(self, oid: str, repo: Repo, account: Account) -> bool:
        """Say whether `account` may put a stored large file into `repo` without sending it.

        Knowing a hash is not enough: some repository that the account may read must hold the file.
        """
        if self.objects.size(oid) is None:
            return False
        return repo.links(oid) or any(
            other.links(oid) and other.opens_to(account)
            for kind in KINDS
            for other in self.all(kind)
        )
