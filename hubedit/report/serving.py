"""The report on 127.0.0.1, for as long as somebody looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from hubedit.report.page import POLICY

HOST = "127.0.0.1"


@contextmanager
def served(page: str) -> Iterator[str]:
    """Serve one page at a free port of this machine while the block lasts; gives its address."""
    server = ThreadingHTTPServer((HOST, 0), _answering(page.encode()))
    address = f"{HOST}:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True, name="report")
    thread.start()
    try:
        yield f"http://{address}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answering(content: bytes) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        server_version = "hubedit"
        sys_version = ""

        def do_GET(self) -> None:
            """Send the page to whoever asks for it by its own address."""
            host = self.headers.get("Host", "").partition(":")[0]
            if host not in (HOST, "localhost") or self.path != "/":
                self.send_error(404)
                return
            self.send_response(200)
            for name, value in (
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Length", str(len(content))),
                ("Content-Security-Policy", f"{POLICY}; frame-ancestors 'none'"),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of who asked."""

    return Answer
