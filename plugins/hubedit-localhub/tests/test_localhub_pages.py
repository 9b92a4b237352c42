"""Pages: what people see, and that nobody's text becomes a program."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2
import pytest
from hubedit_localhub import LocalHub
from huggingface_hub import CommitOperationAdd, HfApi

EVIL = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def repositories(api: HfApi) -> None:
    api.create_repo("me/open")
    api.create_repo("me/hidden", private=True)
    card = f"---\ntags: [a]\n---\n# A card\n\n{EVIL} [x](javascript:alert(1)) **bold**\n"
    stack = {"format": 1, "edits": [{"name": "edits/0001-rome/DIFF.md", "summary": f"move {EVIL}"}]}
    operations = [
        CommitOperationAdd("README.md", card.encode()),
        CommitOperationAdd("hubedit.json", json.dumps(stack).encode()),
        CommitOperationAdd(f"{EVIL.replace('/', '')}.txt", b"x"),
    ]
    api.create_commit("me/open", operations, commit_message=f"add {EVIL}")
    api.create_tag("me/open", tag="edits/v1")
    changed = card.replace("A card", "A better card").encode()
    api.create_commit(
        "me/open",
        [CommitOperationAdd("README.md", changed)],
        commit_message=f"better {EVIL}",
        commit_description=f"because {EVIL}",
        create_pr=True,
    )


def test_pages_show_cards_stacks_and_pull_requests(api: HfApi, localhub: LocalHub) -> None:
    head = str(api.model_info("me/open").sha)
    pages = {
        "/": ["me/open"],
        "/me/open": [
            "<h1>A card</h1>",
            "<strong>bold</strong>",
            "edits/0001-rome/DIFF.md",
            "edits/v1",
            "#1 better",
        ],
        "/me/open/tree/edits%2Fv1": ["<h1>A card</h1>", "resolve/edits%2Fv1/README.md"],
        "/me/open/discussions/1": [
            '<span class="removed">-# A card',
            '<span class="added">+# A better card',
            "refs/pr/1",
        ],
        f"/me/open/commit/{head}": ["hubedit.json", "+# A card"],
        "/me/open/blob/main/README.md": ["<h1>A card</h1>"],
    }
    for path, wanted in pages.items():
        answer = httpx2.get(localhub.url + path)
        assert answer.status_code == 200, path
        for text in wanted:
            assert text in answer.text, (path, text)
        assert "<script" not in answer.text
        assert 'href="javascript:' not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert (
        httpx2.get(f"{localhub.url}/static/style.css")
        .headers["content-type"]
        .startswith("text/css")
    )


def test_private_pages_open_with_a_session_and_the_token_leaves_the_address(
    localhub: LocalHub,
) -> None:
    with httpx2.Client(base_url=localhub.url) as browser:
        assert "me/hidden" not in browser.get("/").text
        refused = browser.get("/me/hidden", headers={"accept": "text/html"})
        assert (refused.status_code, refused.headers["content-type"][:9]) == (401, "text/html")
        assert "?token=" in refused.text
        answer = browser.get(f"/me/hidden?token={localhub.token}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/me/hidden")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert localhub.token.lower() not in cookie
        assert browser.get("/me/hidden").status_code == 200
        assert "me/hidden" in browser.get("/").text
        talk = {"title": "by cookie", "description": ""}
        assert browser.post("/api/models/me/hidden/discussions", json=talk).status_code == 401
        name, value = next(iter(browser.cookies.items()))
        for forged in (value.replace("me:", "ada:"), value[:-1] + "x", "me:9999999999:", ""):
            answer = httpx2.get(f"{localhub.url}/me/hidden", cookies={name: forged})
            assert answer.status_code == 401
    answer = httpx2.get(f"{localhub.url}/me/hidden?token=hf_wrong")
    assert answer.status_code in (303, 401)
    assert "set-cookie" not in answer.headers


def test_a_timeline_tells_which_version_brought_which_edit(api: HfApi, localhub: LocalHub) -> None:
    edits = [{"name": "0001-rome", "method": "rome"}, {"name": "0002-ft", "method": "ft"}]
    commits = []
    for height in (1, 2):
        stack = json.dumps({"format": 1, "edits": edits[:height]}).encode()
        commits.append(
            api.upload_file(path_or_fileobj=stack, path_in_repo="hubedit.json", repo_id="me/open")
        )
        if height == 1:
            api.create_tag("me/open", tag="v1")
    first = commits[0]
    page = httpx2.get(f"{localhub.url}/me/open").text
    assert page.index("0002-ft") < page.index("0001-rome")
    assert (
        f'<a class="tag merged" href="/me/open/tree/v1">v1</a> <a href="/me/open/commit/{first.oid}'
        in (page)
    )
    assert page.count("not tagged") == 1


def test_weights_are_shown_as_a_table_of_tensors(
    api: HfApi, localhub: LocalHub, tensors: Callable[..., bytes]
) -> None:
    data = tensors("wte.weight", f"evil{EVIL}")
    api.upload_file(path_or_fileobj=data, path_in_repo="w.safetensors", repo_id="me/open")
    page = httpx2.get(f"{localhub.url}/me/open/blob/main/w.safetensors").text
    assert "<code>wte.weight</code></td><td>F32</td>" in page
    assert "<script" not in page
    broken = httpx2.get(f"{localhub.url}/me/open/blob/main/README.md")
    assert broken.status_code == 200
    api.upload_file(path_or_fileobj=b"\xff" * 99, path_in_repo="b.safetensors", repo_id="me/open")
    assert httpx2.get(f"{localhub.url}/me/open/blob/main/b.safetensors").status_code == 200
