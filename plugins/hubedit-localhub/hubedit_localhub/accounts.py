"""Users and their tokens; a token is stored as its SHA-256 alone, save the owner's own."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hubedit_localhub.locks import locked, read_json, write_json, write_whole
from hubedit_localhub.names import check_user
from hubedit_localhub.refusals import Refusal

Role = Literal["read", "write"]


class Account(NamedTuple):
    """Who is asking, and what their token may do."""

    user: str
    role: Role
    token_name: str = "local"

    @property
    def writes(self) -> bool:
        """Whether the token is one that may write."""
        return self.role == "write"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Accounts:
    """The users of one root: `accounts.json`, the owner's `token` and the signing `secret`."""

    def __init__(self, root: Path, owner: str) -> None:
        self.root = root
        self._path = root / "accounts.json"
        self._seen: tuple[int, int, int] | None = None
        self._data: dict[str, Any] = {}
        with locked(root / "accounts.lock"):
            if not (root / "secret").exists():
                write_whole(root / "secret", secrets.token_bytes(32))
            if not self._path.exists():
                check_user(owner)
                write_json(self._path, {"owner": owner, "users": {owner: {}}, "tokens": {}})
            if not (root / "token").exists():
                token = self._issue(self._read()["owner"], "write", "owner")
                write_whole(root / "token", token.encode())
        self.secret = (root / "secret").read_bytes()

    @property
    def owner(self) -> str:
        """The user this root belongs to."""
        return str(self._read()["owner"])

    @property
    def owner_token(self) -> str:
        """The owner's token, which may write."""
        return (self.root / "token").read_text()

    def _read(self) -> dict[str, Any]:
        stat = self._path.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._data, self._seen = read_json(self._path), seen
        return self._data

    def _issue(self, user: str, role: Role, name: str) -> str:
        data = read_json(self._path)
        if user not in data["users"]:
            raise Refusal(404, f"no user {user!r}")
        token = "hf_" + secrets.token_urlsafe(30).replace("-", "0").replace("_", "1")
        data["tokens"][_digest(token)] = {"user": user, "role": role, "name": name}
        write_json(self._path, data)
        return token

    def create_user(self, name: str) -> None:
        """Add a user; nothing happens if there is one of that name.

        Raises:
            Refusal: 400 no such name may be; 409 there is one that differs in case alone.
        """
        check_user(name)
        with locked(self.root / "accounts.lock"):
            data = read_json(self._path)
            same = next((user for user in data["users"] if user.lower() == name.lower()), name)
            if same != name:
                raise Refusal(409, f"there is a user {same!r} already")
            if name not in data["users"]:
                data["users"][name] = {"created": int(time.time())}
                write_json(self._path, data)

    def create_token(self, user: str, role: Role, name: str = "local") -> str:
        """Return a new token; it is shown this once."""
        if role not in ("read", "write"):
            raise Refusal(400, f"a token's role is 'read' or 'write', not {role!r}")
        with locked(self.root / "accounts.lock"):
            return self._issue(user, role, name)

    def users(self) -> list[str]:
        """Return the names of all users, sorted."""
        return sorted(self._read()["users"])

    def by_token(self, token: str) -> Account | None:
        """Return whose token this is, or None."""
        found = self._read()["tokens"].get(_digest(token))
        return Account(found["user"], found["role"], found["name"]) if found else None

    def sign(self, *parts: object) -> str:
        """Return an HMAC-SHA-256 over `parts` under this root's secret, in hexadecimal."""
        text = "\0".join(str(part) for part in parts)
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()

    def check(self, signature: str, *parts: object) -> bool:
        """Say whether `signature` is the one `sign` gives for `parts`."""
        return hmac.compare_digest(signature.encode(), self.sign(*parts).encode())
