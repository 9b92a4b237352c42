"""One request as the routes see it, and the answers they give."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse

from hubedit_localhub.accounts import Account
from hubedit_localhub.history import History
from hubedit_localhub.refusals import Refusal, no_repo
from hubedit_localhub.store import Repo, Store


class Limits(NamedTuple):
    """Sizes in bytes and times that a server is started with.

    Args:
        commit: the largest body of a commit (regular files travel in it).
        multipart_from: uploads of at least this size are split into parts.
        part: the size of a part.
        object: the largest file.
        patience: seconds that headers, or one block of a body, may take to arrive; five times as
            long may one block (of a megabyte) of an answer take to be read.
    """

    commit: int = 64 << 20
    multipart_from: int = 4 << 30
    part: int = 256 << 20
    object: int = 5 << 40
    patience: float = 60.0


@dataclass
class Call:
    """A request, its parameters decoded from the path, its account if a valid token came along."""

    store: Store
    limits: Limits
    method: str
    origin: str
    path: str
    query: QueryParams
    headers: Headers
    account: Account | None
    from_cookie: bool = False
    params: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __getitem__(self, name: str) -> str:
        return self.params[name]

    def need_account(self) -> Account:
        """Return who is asking, or refuse with 401."""
        if self.account is None:
            raise no_repo(known_user=False)
        return self.account

    def repo(self) -> Repo:
        """Return the repository the path names, if it may be read."""
        kind = self.params.get("kind", "models").strip("/") or "models"
        return self.store.get(kind, self["repo"], self.account)

    def writable(self) -> Repo:
        """Return the repository the path names, if it may be written."""
        repo = self.repo()
        repo.need_writer(self.account)
        return repo

    def owned(self) -> Repo:
        """Return the repository the path names, if it belongs to the account."""
        repo = self.repo()
        repo.need_writer(self.account, owner=True)
        return repo

    def history(self) -> History:
        """Open the repository the path names."""
        return History(self.repo())

    def json(self) -> dict[str, Any]:
        """Return the body, an object; an empty body is an empty object."""
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise Refusal(400, "the body must be a JSON object")
        return value

    def fields(self) -> dict[str, list[str]]:
        """Return the body of a form, or the lists of a JSON object."""
        if "json" in self.headers.get("content-type", ""):
            found = self.json().items()
            return {k: [str(x) for x in v] if isinstance(v, list) else [str(v)] for k, v in found}
        try:
            return parse_qs(self.body.decode(), keep_blank_values=True, max_num_fields=10_000)
        except ValueError:
            raise Refusal(400, "the body is not a form") from None

    def number(self, name: str, default: int, most: int) -> int:
        """Return a query parameter that is a number from 0 to `most`."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit()):
            raise Refusal(400, f"{name} must be a number")
        return min(int(text[:12]), most)

    def flag(self, name: str) -> bool:
        """Say whether a query parameter is set to something true."""
        return self.query.get(name, "").lower() in ("1", "true", "yes")

    def next_link(self, **changes: object) -> str:
        """Return a `Link` header that leads to this address with other parameters."""
        items = [(key, value) for key, value in self.query.multi_items() if key not in changes]
        query = urlencode([*items, *changes.items()])
        return f'<{self.origin}{self.path}?{query}>; rel="next"'

    def url(self, repo: Repo, *rest: str) -> str:
        """Return the address of a page of `repo`."""
        return "/".join([f"{self.origin}/{repo.prefix}{repo.id}", *(quote(part) for part in rest)])


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return a JSON answer."""
    return JSONResponse(value, status, headers)
