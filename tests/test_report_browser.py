"""The report in a real browser: its keys, its colours, attacks, and what it asks of the network."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import CHROMIUM, MISSING, browser
from pages import files_of, hostile_files, page_of

# No Python package brings a browser, so a stranger's first test run must do without; `.ci/run`
# installs one, so that these run for every commit that lands.
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

SHOWN = """[...document.querySelectorAll(".probes tbody tr")].filter(
    (row) => row.getClientRects().length > 0).length"""
FOCUSED = "document.activeElement"


@pytest.fixture
def opened(tmp_path):
    """Open a page from disk in a browser of its own."""
    with browser(tmp_path / "home") as tab:

        def call(page):
            (tmp_path / "report.html").write_text(page, encoding="utf-8")
            tab.open((tmp_path / "report.html").as_uri())
            return tab

        yield call


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


def test_the_filters_are_worked_by_the_keyboard_and_show_what_they_count(opened):
    tab = opened(page_of(files_of("one-fact")))
    assert tab.ask(SHOWN) == 7
    for _ in range(40):
        tab.press("Tab")
        if tab.ask(f"{FOCUSED}.type") == "radio":
            break
    found = []
    for _ in range(3):
        tab.press("ArrowRight")
        found.append((tab.ask(f"{FOCUSED}.value"), tab.ask(SHOWN)))
    assert found == [("changed", 3), ("unchanged", 4), ("regressed", 1)]


def test_every_part_of_the_page_is_reached_by_the_keyboard(opened):
    tab = opened(page_of(files_of("one-fact")))
    tab.press("Tab")
    assert tab.ask(f"{FOCUSED}.textContent") == "Skip to the edit"
    tab.press("Enter")
    assert tab.ask("location.hash") == "#edit"
    closed = "document.querySelectorAll('details:not([open])').length"
    before = tab.ask(closed)
    for _ in range(40):
        tab.press("Tab")
        if tab.ask(f"{FOCUSED}.matches('details:not([open]) > summary')"):
            tab.press("Enter")
    assert before > 0
    assert tab.ask(closed) == 0


def test_the_page_is_light_or_dark_as_the_reader_prefers(opened):
    tab = opened(page_of(files_of("one-fact")))
    grounds = []
    for scheme in ("light", "dark"):
        tab.scheme(scheme)
        grounds.append(tab.ask("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


def test_the_page_fits_a_small_screen(opened):
    tab = opened(page_of(files_of("hostile")))
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    tab.call("Emulation.setDeviceMetricsOverride", **size)
    assert tab.ask("document.documentElement.scrollWidth") <= 360


def test_a_page_full_of_attacks_runs_none_and_asks_for_nothing(opened):
    with serving({}) as (address, asked):
        payload = (
            f"</style><script src='{address}/script'></script><img src='{address}/picture'>"
            f"<script>document.title='taken'</script><link rel=stylesheet href='{address}/style'>"
            f"<svg onload=\"document.title='taken'\"><a href='{address}/'>x</a>"
        )
        tab = opened(page_of(hostile_files(payload)))
        assert tab.ask("document.title").startswith("as recorded, not verified")
        assert tab.ask("document.scripts.length + document.images.length") == 0
        assert "<script>document.title='taken'" in tab.ask("document.body.textContent")
        assert asked == []


def test_the_policy_stops_an_attack_that_was_not_escaped(opened):
    """The second wall by itself: an attack within the page; without the policy it runs."""
    with serving({}) as (address, asked):
        attack = f"<img src='{address}/picture'><script>document.title='taken'</script>"
        page = page_of(files_of("one-fact")).replace("<main>", f"<main>{attack}")
        tab = opened(page)
        assert tab.ask("document.title").startswith("as recorded, not verified")
        assert asked == []
        tab = opened(page.replace("Content-Security-Policy", "nothing"))
        assert tab.ask("document.title") == "taken"
        assert asked == ["/picture"]
