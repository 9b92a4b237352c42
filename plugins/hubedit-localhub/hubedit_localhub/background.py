"""The one background server of a root: found through its lock file, started when it is missing."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hubedit_localhub.accounts import Accounts
from hubedit_localhub.locks import read_json, take_forever, write_json

IDLE_SECONDS = 900
START_SECONDS = 30.0
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class LocalHubInfo:
    """A running Hub of another process.

    Args:
        url: its address, without a slash at the end.
        token: the owner's token, which may write.
        user: the owner.
        root: where everything lies.
        pid: the process that serves it.
    """

    url: str
    token: str
    user: str
    root: Path
    pid: int

    @property
    def home(self) -> Path:
        """The client's cache directory for this Hub alone."""
        return self.root / "client-home"


def default_root() -> Path:
    """Return where the Hub lies unless said otherwise."""
    from hubedit import cache_home

    return cache_home() / "hub"


def environment(url: str, token: str, home: Path) -> dict[str, str]:
    """Return the environment that makes the client talk to `url` and to nobody else.

    A proxy would not find 127.0.0.1, and "offline" would forbid it as well.
    """
    direct = "127.0.0.1,localhost"
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    if before and not before.startswith(direct):
        direct = f"{direct},{before}"
    return {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def exports(variables: dict[str, str]) -> str:
    """Return lines for a shell that set `variables`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _ping(url: str) -> dict[str, Any] | None:
    """Ask a server who it is, past any proxy; None if nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", "/api/ping")
        answer = connection.getresponse()
        found = json.loads(answer.read(4096)) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None


def _lock(root: Path) -> Path:
    return root / "server.lock"


def running(root: Path) -> LocalHubInfo | None:
    """Return the server of `root`, or None if none is alive."""
    root = root.absolute()
    try:
        said = read_json(root / "server.json")
        url, pid = str(said["url"]), int(said["pid"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    found = _ping(url)
    if not found or found.get("pid") != pid:
        return None
    accounts = Accounts(root, "me")
    if found.get("root") != accounts.sign("root")[:16]:
        return None
    return LocalHubInfo(url, accounts.owner_token, accounts.owner, root, pid)


def _start(root: Path) -> subprocess.Popen[bytes]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [
        sys.executable,
        "-P",
        "-m",
        "hubedit_localhub",
        "--root",
        str(root),
        "--idle",
        str(IDLE_SECONDS),
    ]
    with open(root / "server.log", "ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    _children.append(child)
    return child


def connect(root: Path | None = None) -> LocalHubInfo:
    """Return the server of `root`, started in the background if none runs.

    Args:
        root: where everything lies; `hub` below hubedit's own directory if not said.

    Raises:
        HubError: the server did not start; names its log.
    """
    from hubedit import HubError

    place = (root or default_root()).absolute()
    found = running(place)
    if found:
        return found
    child = _start(place)
    deadline = time.monotonic() + START_SECONDS
    pause = 0.02
    while time.monotonic() < deadline:
        found = running(place)
        if found:
            return found
        # A child that found the root taken leaves; the one that took it will answer.
        if child.poll() not in (None, 0):
            break
        time.sleep(pause)
        pause = min(pause * 1.3, 0.25)
    raise HubError(f"the local Hub of {place} did not start; {place / 'server.log'} says why")


def stop(root: Path | None = None) -> bool:
    """Stop the server of `root`; say whether there was one."""
    found = running(root or default_root())
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and _ping(found.url):
        time.sleep(0.05)
    return True


def run_here(
    root: Path,
    port: int,
    idle: float,
    ready: Callable[[LocalHubInfo], None] | None = None,
    host: str = "127.0.0.1",
) -> bool:
    """Be the server of `root` until a signal or idleness ends it; False if it has one already.

    Args:
        root: where everything lies.
        port: the port; 0 takes a free one.
        idle: seconds without a request after which to end; 0 for never.
        ready: called once, as soon as the address is known.
        host: the address to listen on.
    """
    from hubedit_localhub.calls import Limits
    from hubedit_localhub.server import build_app, listen, run_until_idle, url_of

    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = take_forever(_lock(root))
    if held is None:
        return False
    try:
        app, store, _ = build_app(root, "me", Limits(), host)
        with listen(port, host) as listening:
            accounts, url = store.accounts, url_of(listening)
            info = LocalHubInfo(url, accounts.owner_token, accounts.owner, root, os.getpid())
            write_json(root / "server.json", {"url": url, "pid": info.pid})
            if ready:
                ready(info)
            run_until_idle(app, [listening], idle)
    finally:
        (root / "server.json").unlink(missing_ok=True)
        os.close(held)
    return True
