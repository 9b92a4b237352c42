"""The ASGI application: route of the raw path, account of the token, words of an error."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from hubedit_localhub.accounts import Account
from hubedit_localhub.calls import Call, Limits
from hubedit_localhub.names import KINDS
from hubedit_localhub.refusals import Refusal, no_repo
from hubedit_localhub.sessions import session_account, session_name
from hubedit_localhub.store import Store

log = logging.getLogger("hubedit_localhub")

BODY_LIMIT = 4 << 20
# A client that is still sending does not read the answer, so much of a large body is heard out.
DRAINED = 16
BAD_TOKEN = "Invalid credentials in Authorization header"
NOTED = frozenset({400, 403, 408, 413, 421, 422})
READING = 5
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_REPO = r"(?P<repo>(?!(?:api|lfs|static)/)[^/]+/[^/]+)"
_PARTS = {
    "kind": rf"(?P<kind>{'|'.join(KINDS)})",
    "pre": r"(?P<kind>datasets/)?",
    "repo": _REPO,
    "rev": r"(?P<rev>refs/pr/\d+|[^/]+)",
    "num": r"(?P<num>[1-9]\d{0,8})",
    "rest": r"(?P<rest>.+)",
}
_ADDRESS = re.compile(
    rf"/(?:api/(?P<kind>{'|'.join(KINDS)})/|(?P<prefix>datasets/)?)"
    r"(?P<name>[^/]+?)(?:\.git)?(?:/(?P<more>[^/]+?)(?:\.git)?(?:/.*)?)?"
)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]+")
_HOLE = re.compile(r"\{(\w+)\}")


class Route(NamedTuple):
    """What answers a method and a shape of path.

    `answer` runs in a thread with the whole body read; `stream` runs in the event loop and reads
    the body itself. `shape` is the path with holes that the pattern was made from.
    """

    shape: str
    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    answer: Callable[[Call], Response] | None = None
    stream: Callable[[Call, Request], Awaitable[Response]] | None = None
    large: bool = False


def _pattern(shape: str) -> re.Pattern[str]:
    return re.compile(_HOLE.sub(lambda hole: _PARTS.get(hole[1], rf"(?P<{hole[1]}>[^/]+)"), shape))


def route(methods: str, shape: str, to: Callable[[Call], Response], large: bool = False) -> Route:
    """Return a route; `shape` is a path with holes such as `{repo}` (still percent-encoded)."""
    return Route(shape, tuple(methods.split()), _pattern(shape), to, None, large)


def stream(methods: str, shape: str, to: Callable[[Call, Request], Awaitable[Response]]) -> Route:
    """Return a route that reads its body itself."""
    return Route(shape, tuple(methods.split()), _pattern(shape), None, to)


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Refusal(400, "the path is not UTF-8") from None


def error_answer(refusal: Refusal) -> Response:
    """Return the refusal as the client understands it."""
    message = refusal.message.encode("ascii", "replace").decode()
    headers = {
        "X-Error-Message": re.sub(r"[\x00-\x1f\x7f]+", " ", message)[:1000].strip(),
        **refusal.headers,
    }
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": refusal.message, **refusal.body}, refusal.status, headers)


class Traffic:
    """What a server has answered: the last requests, how often which status, bytes by path."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.requests: deque[str] = deque(maxlen=10_000)
        self.bytes_by_path: dict[str, int] = {}
        self.active = 0
        self.count = 0

    def sent(self, path: str, count: int) -> None:
        """Count `count` bytes sent for `path`; only so many paths are told apart."""
        key = path if path in self.bytes_by_path or len(self.bytes_by_path) < 10_000 else "*"
        self.bytes_by_path[key] = self.bytes_by_path.get(key, 0) + count


class Patience:
    """A body as it arrives, given up when it stops or trickles.

    Args:
        receive: where it comes from.
        seconds: how long one block may take; a whole body gets this and a second per kilobyte.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self.receive, self.seconds = receive, seconds
        self.began, self.size = time.monotonic(), 0

    async def __call__(self) -> Message:
        """Return the next message of the client, or refuse with 408."""
        left = self.seconds + self.size / 1024 - (time.monotonic() - self.began)
        try:
            async with asyncio.timeout(max(0.0, min(self.seconds, left))):
                message = await self.receive()
        except TimeoutError:
            headers = {"Connection": "close"}
            raise Refusal(408, "the body did not arrive in time", headers=headers) from None
        self.size += len(message.get("body", b""))
        return message


class App:
    """The Hub over one store, as an ASGI application."""

    def __init__(
        self,
        store: Store,
        routes: Iterable[Route],
        error_page: Callable[[Refusal], Response],
        limits: Limits,
        traffic: Traffic,
        local: bool = True,
    ) -> None:
        self.store, self.limits, self.traffic = store, limits, traffic
        self.local = local
        self.error_page = error_page
        self.routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("ascii", "replace")
        self.traffic.requests.append(f"{scope['method']} {path}")
        self.traffic.count += 1
        request_id = secrets.token_hex(8)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.traffic.statuses[message["status"]] += 1
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            else:
                self.traffic.sent(path, len(message.get("body", b"")))
            # A client that stops reading would hold its connection for ever.
            async with asyncio.timeout(self.limits.patience * READING):
                await send(message)

        self.traffic.active += 1
        try:
            patient = Patience(receive, self.limits.patience)
            response = await self._answer(path, Request(scope, patient), request_id)
            await response(scope, receive, counted)
        except ClientDisconnect:
            pass
        except TimeoutError:
            log.warning("request %s given up: its answer is not read", request_id)
        finally:
            self.traffic.active -= 1

    async def _answer(self, path: str, request: Request, request_id: str) -> Response:
        call: Call | None = None
        try:
            call = self._call(path, request)
            found = self._find(call)
            if found.stream:
                return await found.stream(call, request)
            assert found.answer is not None
            call.body = await self._body(request, self.limits.commit if found.large else BODY_LIMIT)
            return await run_in_threadpool(found.answer, call)
        except Refusal as refusal:
            self._note(refusal, request, path, request_id)
            if call is not None and refusal.code == "RepoNotFound":
                with suppress(Refusal):
                    forwarded = self._forwarded(call)
                    if forwarded:
                        return forwarded
            if self._is_browser(path, request):
                return self.error_page(refusal)
            return error_answer(refusal)
        except ClientDisconnect:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and call is not None and "repo" in call.params:
                return error_answer(no_repo(call.account is not None))
            if isinstance(error, OSError) and error.errno == 28:
                return error_answer(Refusal(507, "no space is left on the disk of this Hub"))
            log.exception("request %s: %s %s", request_id, request.method, path)
            return error_answer(
                Refusal(500, f"internal error, see the log for request {request_id}")
            )

    @staticmethod
    def _note(refusal: Refusal, request: Request, path: str, request_id: str) -> None:
        """Log what was refused; never a token, a signature or a body."""
        loud = refusal.status in NOTED or refusal.message == BAD_TOKEN
        log.log(
            logging.WARNING if loud else logging.DEBUG,
            "request %s refused with %d: %s %s",
            request_id,
            refusal.status,
            request.method,
            _TOKEN.sub("hf_…", path)[:500],
        )

    @staticmethod
    def _is_browser(path: str, request: Request) -> bool:
        page = not path.startswith(("/api/", "/lfs/")) and "/resolve/" not in path
        return page and "text/html" in request.headers.get("accept", "")

    def _call(self, path: str, request: Request) -> Call:
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise Refusal(400, "Invalid host")
        # A page on the web may point a name of its own at 127.0.0.1; it must not reach this server.
        if self.local and re.sub(r":\d+$", "", host) not in LOCAL_NAMES:
            raise Refusal(421, "this Hub answers on 127.0.0.1 and localhost only")
        account, from_cookie = self._account(request)
        return Call(
            self.store,
            self.limits,
            request.method,
            # "https" behind a proxy on this machine that says so (X-Forwarded-Proto).
            f"{request.scope['scheme']}://{host}",
            path,
            QueryParams(request.scope["query_string"]),
            Headers(scope=request.scope),
            account,
            from_cookie,
        )

    def _account(self, request: Request) -> tuple[Account | None, bool]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            account = (
                self.store.accounts.by_token(token.strip()) if scheme.lower() == "bearer" else None
            )
            if account is None:
                raise Refusal(401, BAD_TOKEN)
            return account, False
        if request.method not in ("GET", "HEAD"):
            return None, False
        return session_account(self.store, request.cookies.get(session_name(self.store), "")), True

    def _find(self, call: Call) -> Route:
        other_method = False
        for candidate in self.routes:
            match = candidate.pattern.fullmatch(call.path)
            if match and call.method in candidate.methods:
                call.params = {
                    k: _decoded(v) for k, v in match.groupdict().items() if v is not None
                }
                return candidate
            other_method = other_method or match is not None
        self._need_repo(call)
        if other_method:
            raise Refusal(405, f"{call.method} is not for this address")
        raise Refusal(404, "this Hub has no such address")

    def _need_repo(self, call: Call) -> None:
        """Tell a missing repository from a missing endpoint: the client tells them apart too."""
        found = re.match(rf"/api/({'|'.join(KINDS)})/([^/]+(?:/[^/]+)?)", call.path)
        if found:
            self.store.get(found[1], _decoded(found[2]), call.account)
        elif re.search(r"/(resolve|tree|blob|commit|discussions)/|/info/lfs/", call.path):
            raise no_repo(call.account is not None)

    def _forwarded(self, call: Call) -> Response | None:
        """Lead from an old name, another spelling, or a name without its owner, to the repository.

        A name alone, as `gpt2` is one on the real Hub, stands for the repository of that name that
        belongs to the owner of this Hub.
        """
        found = _ADDRESS.fullmatch(call.path)
        if found is None:
            return None
        kind = (found["kind"] or found["prefix"] or "models").strip("/")
        owner = self.store.accounts.owner
        for name in (f"{found['name']}/{found['more']}", found["name"]):
            plain = _decoded(name)
            wanted = plain if "/" in plain else f"{owner}/{plain}"
            to = self.store.moved_to(kind, wanted) or self.store.same_but_for_case(kind, wanted)
            repo = self.store.find(kind, to) if to else None
            if repo is not None and repo.id != plain and repo.readable_by(call.account):
                query = f"?{call.query}" if call.query else ""
                rest = call.path[found.start("name") + len(name) :]
                return RedirectResponse(
                    f"{call.path[: found.start('name')]}{quote(repo.id)}{rest}{query}", 307
                )
        return None

    async def _body(self, request: Request, limit: int) -> bytes:
        refusal = Refusal(
            413,
            f"the body is larger than {limit} bytes; send large files through LFS",
            headers={"Connection": "close"},
        )
        blocks: list[bytes] = []
        size = 0
        async for block in request.stream():
            size += len(block)
            if size <= limit:
                blocks.append(block)
            elif size > limit * DRAINED:
                raise refusal
        if size > limit:
            raise refusal
        return b"".join(blocks)
