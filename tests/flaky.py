"""A proxy before the Hub that fails as networks do, at seeded moments."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("drop", "drop the answer", "truncate", "delay", "429", "500", "503")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}


class Flaky:
    """Where the proxy listens, and what it did: `share` of all requests go wrong.

    What begins with `shut` is refused.
    """

    def __init__(self, upstream: str, share: float, seed: int) -> None:
        self.upstream, self.share = urlsplit(upstream), share
        self.did: Counter[str] = Counter()
        self.calm = False
        self.shut: str | None = None
        self._draw, self._lock = random.Random(seed), threading.Lock()
        self.url = ""

    def choose(self) -> str:
        """What happens to the next request."""
        with self._lock:
            wrong = not self.calm and self._draw.random() < self.share
            fault = self._draw.choice(FAULTS) if wrong else "nothing"
            self.did[fault] += 1
            return fault


class Handler(BaseHTTPRequestHandler):
    """Passes one request on, or does not."""

    protocol_version = "HTTP/1.1"
    flaky: Flaky

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        shut = self.flaky.shut and self.path.startswith(self.flaky.shut)
        fault = "403" if shut else self.flaky.choose()
        body = self._body()
        self.close_connection = True
        if fault == "drop":
            return
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            if fault == "429":
                self.send_header("Retry-After", "0")
            self.end_headers()
            return
        if fault == "delay":
            time.sleep(0.2)
        self._forward(body, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes, fault: str) -> None:
        upstream = self.flaky.upstream
        assert upstream.hostname
        connection = HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        try:
            kept = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            if body or self.command in ("POST", "PUT"):
                kept["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body or None, kept)
            answer = connection.getresponse()
            content = answer.read()
            if fault == "drop the answer":
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length")
            whole = length if self.command == "HEAD" and length else str(len(content))
            self.send_header("Content-Length", whole)
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if fault == "truncate" else content)
        finally:
            connection.close()


@contextmanager
def flaky(upstream: str, share: float, seed: int) -> Iterator[Flaky]:
    """A proxy to `upstream` while the `with` lasts."""
    state = Flaky(upstream, share, seed)
    handler = type("Bound", (Handler,), {"flaky": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield state
        server.shutdown()
        thread.join()
