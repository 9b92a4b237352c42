"""A reviewer's way through the embedded Hub in a real browser, from the list to the report."""

import httpx2 as httpx
import pytest
from browser import CHROMIUM, MISSING, browser
from test_way import recipe_in

# No Python package brings a browser, so a stranger's first test run must do without; `.ci/run`
# installs one, so that these run for every commit that lands.
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

SHOWN = """[...document.querySelectorAll(".probes tbody tr")].filter(
    (row) => row.getClientRects().length > 0).length"""


def follow(tab, words):
    """Click the first link whose text holds the words, and wait for the page it leads to."""
    links = "[...document.querySelectorAll('a')]"
    before = tab.ask("location.href")
    assert tab.ask(f"{links}.some((a) => a.textContent.includes({words!r}))"), words
    tab.ask(f"{links}.find((a) => a.textContent.includes({words!r})).click()")
    tab.wait(f"location.href !== {before!r} && document.readyState === 'complete'")


def test_from_the_list_of_repositories_to_a_filtered_report_and_the_merged_version(
    localhub, tiny, hubedit, tmp_path, monkeypatch
):
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    monkeypatch.chdir(recipe_in(tmp_path / "work", "me/tiny"))
    assert hubedit("apply", "--push")[0] == 0
    with browser(tmp_path / "home") as tab:
        tab.open(f"{localhub.url}/?token={localhub.token}")
        tab.wait("!location.search")
        follow(tab, "me/tiny-edited")
        assert "not tagged" not in tab.ask("document.body.textContent")
        follow(tab, "rome: ")
        assert "Ada Brook plays the" in tab.ask("document.body.textContent")
        follow(tab, "Report")
        assert tab.ask("document.querySelector('h1').textContent")
        every = tab.ask(SHOWN)
        counts = []
        for name in ("changed", "unchanged", "regressed"):
            tab.ask(f"document.querySelector('input[type=radio][value={name}]').click()")
            counts.append(tab.ask(SHOWN))
        assert every >= 2
        assert counts[0] + counts[1] == every
        assert hubedit("merge", "me/tiny-edited", "1")[0] == 0
        tab.open(f"{localhub.url}/me/tiny-edited")
        timeline = tab.ask("document.body.textContent")
        assert "v1" in timeline
        assert "0001-rome-" in timeline
        follow(tab, "rome: ")
        assert "merged" in tab.ask("document.body.textContent")


def test_a_pull_request_without_an_edit_has_no_report(localhub):
    api = localhub.api()
    api.create_repo("me/plain")
    pull = api.create_pull_request("me/plain", title="empty")
    headers = {"Authorization": f"Bearer {localhub.token}"}
    page = httpx.get(
        f"{localhub.url}/me/plain/discussions/{pull.num}", headers=headers, trust_env=False
    )
    assert page.status_code == 200
    assert "/report" not in page.text
    report = httpx.get(
        f"{localhub.url}/me/plain/discussions/{pull.num}/report", headers=headers, trust_env=False
    )
    assert report.status_code == 404
