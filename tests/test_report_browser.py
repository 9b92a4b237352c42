"""The report in a real browser: filters, attacks and what it asks of the network."""

import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pages import files_of, hostile_files, page_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

FILTERING = """<!doctype html><title>waiting</title><iframe src="/report" width="900" height="600">
</iframe><script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  const shown = () => [...page.querySelectorAll(".probes tbody tr")].filter(
    (row) => row.getClientRects().length > 0).length;
  const found = ["all", "changed", "unchanged", "regressed"].map((kind) => {
    page.querySelector(`input[value=${kind}]`).click();
    return shown();
  });
  document.title = "shown " + found.join(" ");
});</script>"""


@contextmanager
def serving(pages):
    """Serve pages by their paths; gives the address and the paths that were asked for."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = pages.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((content or "").encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def browsed(address, home):
    """The document that the browser ends with."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={home}"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--virtual-time-budget=4000", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "<html" in done.stdout, done.stderr[-2000:]
    return done.stdout


def test_the_filters_show_what_they_count(tmp_path):
    pages = {"/": FILTERING, "/report": page_of(files_of("one-fact"))}
    with serving(pages) as (address, _):
        assert "<title>shown 7 3 4 1</title>" in browsed(f"{address}/", tmp_path / "home")


def test_a_page_full_of_attacks_runs_none_and_asks_for_nothing(tmp_path):
    with serving({}) as (address, asked):
        payload = (
            f"</style><script src='{address}/script'></script><img src='{address}/picture'>"
            f"<script>document.title='taken'</script><link rel=stylesheet href='{address}/style'>"
            f"<svg onload=\"document.title='taken'\"><a href='{address}/'>x</a>"
        )
        (tmp_path / "report.html").write_text(page_of(hostile_files(payload)), encoding="utf-8")
        document = browsed((tmp_path / "report.html").as_uri(), tmp_path / "home")
        assert "<title>as recorded, not verified" in document
        assert "&lt;script&gt;document.title='taken'" in document
        assert asked == []


def test_the_policy_stops_what_a_page_would_do_that_escaped_nothing(tmp_path):
    """The second wall, by itself: the same policy over a page into which an attack got."""
    with serving({}) as (address, asked):
        attack = (
            f"<script>document.title='taken'</script><img src='{address}/picture'>"
            f"<script src='{address}/script'></script><iframe src='{address}/frame'></iframe>"
        )
        page = page_of(files_of("one-fact")).replace("<main>", f"<main>{attack}")
        (tmp_path / "report.html").write_text(page, encoding="utf-8")
        document = browsed((tmp_path / "report.html").as_uri(), tmp_path / "home")
        assert "<title>as recorded, not verified" in document
        assert asked == []
