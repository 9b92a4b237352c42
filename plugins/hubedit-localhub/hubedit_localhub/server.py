"""Running the Hub: in a thread of this program, or as the whole of one."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hubedit_localhub.accounts import Role
from hubedit_localhub.app import App, Traffic
from hubedit_localhub.calls import Limits
from hubedit_localhub.routes import ROUTES
from hubedit_localhub.routes.pages import error_page
from hubedit_localhub.store import Store

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 30
CONNECTIONS = 1000


def listen(port: int, host: str = HOST) -> socket.socket:
    """Return a socket that listens on an address of this machine; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle's delay off: 40 ms less for each answer.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(256)
    except BaseException:
        found.close()
        raise
    return found


def url_of(listening: socket.socket) -> str:
    """Return the address of a listening socket, as this machine itself reaches it."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = HOST
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(host: str) -> bool:
    """Say whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Patient(H11Protocol):
    """HTTP/1.1 whose clients must send their headers in time, not a byte now and then."""

    seconds = 60.0
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.access_log = False  # it would write addresses with what is signed or secret in them

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._wait(self.seconds)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait(self.seconds + KEEP_ALIVE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)


def uvicorn_server(app: App) -> uvicorn.Server:
    """Return a server that logs nothing but its own troubles."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            loop="asyncio",
            http=type("Patient", (Patient,), {"seconds": app.limits.patience}),
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
    )


@dataclass
class LocalHub:
    """A running Hub.

    Args:
        url: its address, without a slash at the end.
        token: the owner's token, which may write.
        user: the owner.
        root: where everything lies.
    """

    url: str
    token: str
    user: str
    root: Path
    store: Store
    traffic: Traffic

    def create_user(self, name: str) -> str:
        """Add a user and return a token of theirs that may write."""
        self.store.accounts.create_user(name)
        return self.store.accounts.create_token(name, "write")

    def create_token(self, role: Role = "read", user: str | None = None) -> str:
        """Return a new token of `user`, the owner if not said."""
        return self.store.accounts.create_token(user or self.user, role)

    @property
    def requests(self) -> list[str]:
        """The last requests as `METHOD /raw/path`, at most ten thousand."""
        return list(self.traffic.requests)

    @property
    def bytes_sent(self) -> int:
        """Bytes of all bodies sent so far."""
        return sum(dict(self.traffic.bytes_by_path).values())

    def bytes_served(self, prefix: str) -> int:
        """Return the bytes of bodies sent for paths that begin with `prefix`."""
        served = dict(self.traffic.bytes_by_path)
        return sum(count for path, count in served.items() if path.startswith(prefix))

    def env(self, home: Path | None = None) -> dict[str, str]:
        """Return the environment that makes `hf` and transformers talk to this Hub and no other."""
        from hubedit_localhub.background import environment

        return environment(self.url, self.token, home or self.root / "client-home")

    def api(self, token: str | bool | None = None) -> HfApi:
        """Return a client; `token` False is nobody, None the owner."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=self.token if token is None else token)


def build_app(
    root: Path, user: str, limits: Limits, host: str = HOST
) -> tuple[App, Store, Traffic]:
    """Return the application over `root` and what it is made of."""
    store, traffic = Store(root, user), Traffic()
    store.sweep()
    return App(store, ROUTES, error_page, limits, traffic, is_local(host)), store, traffic


@contextmanager
def serve(
    root: Path,
    *,
    port: int = 0,
    user: str = "me",
    limits: Limits | None = None,
    host: str = HOST,
) -> Iterator[LocalHub]:
    """Run a Hub in a thread while the block lasts.

    Several servers, in this process or in others, may serve the same root at once.

    Args:
        root: where everything lies; made if missing, kept afterwards.
        port: the port; 0 takes a free one.
        user: who owns a root that is new; an old one keeps its owner.
        limits: sizes from which bodies are refused or uploads are split, and times.
        host: the address to listen on. Others than the loopback are reached by everyone who
            reaches this machine, and nothing that travels is encrypted.
    """
    app, store, traffic = build_app(Path(root), user, limits or Limits(), host)
    server = uvicorn_server(app)
    with listen(port, host) as listening:
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, name="localhub", daemon=True
        )
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                if not thread.is_alive() or time.monotonic() > deadline:
                    raise RuntimeError("the local Hub did not start")
                time.sleep(0.005)
            accounts = store.accounts
            yield LocalHub(
                url_of(listening), accounts.owner_token, accounts.owner, store.root, store, traffic
            )
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)


def run_until_idle(app: App, listening: Sequence[socket.socket], idle: float) -> None:
    """Serve until a signal comes, or nothing was asked for `idle` seconds (0: for ever)."""
    server = uvicorn_server(app)

    def watch() -> None:
        quiet_since, seen = time.monotonic(), -1
        while not server.should_exit:
            time.sleep(min(1.0, idle / 4))
            if app.traffic.active or app.traffic.count != seen:
                quiet_since, seen = time.monotonic(), app.traffic.count
            elif time.monotonic() - quiet_since > idle:
                server.should_exit = True

    if idle > 0:
        threading.Thread(target=watch, daemon=True, name="idle").start()
    # uvicorn ends well on SIGTERM, then raises it again; by then there is nothing left to end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run(sockets=list(listening))
