"""Commits: what lands, who loses a race, which paths are refused."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hubedit_localhub import LocalHub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session


def _content(api: HfApi, path: str, revision: str = "main") -> bytes:
    return Path(api.hf_hub_download("me/demo", path, revision=revision)).read_bytes()


def _add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


@pytest.fixture(autouse=True)
def demo(api: HfApi) -> None:
    api.create_repo("me/demo")


def test_one_commit_adds_replaces_deletes_and_copies(
    api: HfApi, folder: Path, fsck: Callable[[str], str]
) -> None:
    first = api.upload_folder(repo_id="me/demo", folder_path=folder).oid
    api.create_commit(
        "me/demo",
        [
            _add("README.md", b"# new\n"),
            _add("deep/er/new.txt", b"n"),
            CommitOperationDelete("sub/", is_folder=True),
            CommitOperationCopy("model.safetensors", "copy.safetensors"),
            CommitOperationCopy("sub/notes.txt", "notes.txt", src_revision=first),
        ],
        commit_message="Rearrange",
        commit_description="Why: to test.",
        parent_commit=first,
    )
    assert sorted(api.list_repo_files("me/demo")) == [
        ".gitattributes",
        "README.md",
        "copy.safetensors",
        "deep/er/new.txt",
        "model.safetensors",
        "notes.txt",
    ]
    assert _content(api, "README.md") == b"# new\n"
    assert _content(api, "copy.safetensors") == (folder / "model.safetensors").read_bytes()
    assert _content(api, "sub/notes.txt", first) == (folder / "sub" / "notes.txt").read_bytes()
    commit = api.list_repo_commits("me/demo")[0]
    assert (commit.title, commit.message) == ("Rearrange", "Why: to test.")
    assert fsck("me/demo") == ""


def test_of_eight_racing_writers_exactly_one_wins(api: HfApi, fsck: Callable[[str], str]) -> None:
    base = api.model_info("me/demo").sha
    start = threading.Barrier(8)

    def push(number: int) -> int:
        start.wait()
        try:
            api.create_commit(
                "me/demo", [_add(f"{number}", b"x")], commit_message="race", parent_commit=base
            )
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(push, range(8))) == [200] + [412] * 7
    assert len(api.list_repo_commits("me/demo")) == 2
    assert fsck("me/demo") == ""


def test_sixteen_commits_without_a_parent_all_land(api: HfApi, fsck: Callable[[str], str]) -> None:
    def push(number: int) -> str:
        operations = [_add(f"d/{number}.txt", b"x"), _add(f"{number}.bin", bytes([number]) * 9)]
        return api.create_commit("me/demo", operations, commit_message=f"{number}").oid

    with ThreadPoolExecutor(16) as pool:
        oids = set(pool.map(push, range(16)))
    history = [commit.commit_id for commit in api.list_repo_commits("me/demo")]
    assert set(history[:-1]) == oids
    assert len(history) == 17
    assert len(api.list_repo_files("me/demo")) == 33
    assert fsck("me/demo") == ""


def test_a_file_and_a_folder_cannot_share_a_name(api: HfApi) -> None:
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a/b.txt", repo_id="me/demo")
    for path in ("a", "a/b.txt/c"):
        with pytest.raises(HfHubHTTPError) as refused:
            api.upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id="me/demo")
        assert refused.value.response.status_code == 422
    operations = [CommitOperationDelete("a/", is_folder=True), _add("a", b"now a file")]
    api.create_commit("me/demo", operations, commit_message="swap")
    assert _content(api, "a") == b"now a file"


def test_a_large_file_of_an_odd_name_gets_its_line_in_gitattributes(api: HfApi) -> None:
    content = b"\0binary"
    api.upload_file(path_or_fileobj=content, path_in_repo="my weights.xyz", repo_id="me/demo")
    assert b"my[[:space:]]weights.xyz filter=lfs" in _content(api, ".gitattributes")
    assert _content(api, "my weights.xyz") == content
    before = api.model_info("me/demo").sha
    api.upload_file(path_or_fileobj=b"\0again", path_in_repo="my weights.xyz", repo_id="me/demo")
    changed = {
        path
        for path in api.list_repo_files("me/demo")
        if _content(api, path) != _content(api, path, str(before))
    }
    assert changed == {"my weights.xyz"}


def _commit(hub: LocalHub, *lines: dict[str, object], revision: str = "main") -> int:
    header = {"key": "header", "value": {"summary": "raw"}}
    body = "\n".join(json.dumps(line) for line in (header, *lines))
    answer = get_session().post(
        f"{hub.url}/api/models/me/demo/commit/{revision}",
        content=body.encode(),
        headers={"authorization": f"Bearer {hub.token}", "content-type": "application/x-ndjson"},
    )
    return answer.status_code


@pytest.mark.parametrize(
    "path",
    [
        "../out.txt",
        "a/../../out.txt",
        "/abs.txt",
        ".git/config",
        "a/.GIT/hooks/x",
        "a\\..\\b",
        "nul\0byte",
        "a//b",
        "./a",
        "",
        "git~1/x",
        ".git /x",
        "x" * 300,
        "\ud800",
    ],
)
def test_paths_that_would_leave_the_repository_are_refused(localhub: LocalHub, path: str) -> None:
    before = localhub.api().model_info("me/demo").sha
    content = base64.b64encode(b"x").decode()
    value = {"path": path, "content": content, "encoding": "base64"}
    assert _commit(localhub, {"key": "file", "value": value}) in (400, 422)
    assert _commit(localhub, {"key": "deletedFile", "value": {"path": path}}) in (400, 404, 422)
    assert localhub.api().model_info("me/demo").sha == before
    assert not list(localhub.root.parent.rglob("out.txt"))


def test_bodies_that_are_not_commits_are_refused(localhub: LocalHub) -> None:
    assert (
        _commit(
            localhub,
            {"key": "file", "value": {"path": "a", "content": "%%%", "encoding": "base64"}},
        )
        == 400
    )
    assert _commit(localhub, {"key": "strange", "value": {}}) == 400
    assert _commit(localhub, {"no": "key"}) == 400
    lfs = {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 3}
    assert _commit(localhub, {"key": "lfsFile", "value": lfs}) == 422
    assert _commit(localhub, {"key": "lfsFile", "value": lfs | {"oid": "../../../x"}}) == 422
    assert _commit(localhub, {"key": "deletedFile", "value": {"path": "x"}}, revision="nope") == 404


def test_a_bad_card_is_refused_before_anything_is_sent(api: HfApi) -> None:
    for header in ("tags: [a", "license: [1]", "- a list", "base_model: {a: b}"):
        content = f"---\n{header}\n---\n# x\n".encode()
        with pytest.raises(ValueError, match="Invalid metadata"):
            api.upload_file(path_or_fileobj=content, path_in_repo="README.md", repo_id="me/demo")
    assert api.list_repo_files("me/demo") == [".gitattributes"]


def test_branches_and_tags_with_slashes(api: HfApi) -> None:
    first = str(api.model_info("me/demo").sha)
    api.create_branch("me/demo", branch="edits/rome-1")
    api.upload_file(
        path_or_fileobj=b"on the branch",
        path_in_repo="a.txt",
        repo_id="me/demo",
        revision="edits/rome-1",
    )
    api.create_tag("me/demo", tag="edits/v1", revision="edits/rome-1", tag_message="annotated")
    api.create_tag("me/demo", tag="v0", revision=first)
    assert _content(api, "a.txt", "edits/rome-1") == b"on the branch"
    assert _content(api, "a.txt", "edits/v1") == b"on the branch"
    assert _content(api, "a.txt", "refs/heads/edits/rome-1") == b"on the branch"
    assert api.list_repo_files("me/demo", revision="v0") == [".gitattributes"]
    refs = api.list_repo_refs("me/demo")
    assert {ref.name for ref in refs.branches} == {"main", "edits/rome-1"}
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    assert tags == {"v0": first, "edits/v1": api.model_info("me/demo", revision="edits/rome-1").sha}
    api.delete_tag("me/demo", tag="edits/v1")
    api.delete_branch("me/demo", branch="edits/rome-1")
    for gone in ("edits/v1", "edits/rome-1", "main~0", "main^{tree}", "HEAD", "refs/heads"):
        with pytest.raises(RevisionNotFoundError):
            api.list_repo_files("me/demo", revision=gone)


def test_references_are_neither_overwritten_nor_ill_named(api: HfApi) -> None:
    api.create_tag("me/demo", tag="v1")
    api.create_tag("me/demo", tag="v1", exist_ok=True)
    for call, status in (
        (lambda: api.create_tag("me/demo", tag="v1"), 409),
        (lambda: api.create_branch("me/demo", branch="main"), 409),
        (lambda: api.create_branch("me/demo", branch="main/sub"), 409),
        (lambda: api.create_branch("me/demo", branch="a..b"), 400),
        (lambda: api.create_branch("me/demo", branch="a.lock"), 400),
        (lambda: api.create_tag("me/demo", tag="../../hub.json"), 400),
        (lambda: api.delete_branch("me/demo", branch="main"), 403),
        (lambda: api.delete_branch("me/demo", branch="nope"), 404),
        (lambda: api.delete_tag("me/demo", tag="nope"), 404),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            call()
        assert refused.value.response.status_code == status


def test_squashed_history_stays_readable_by_hash(api: HfApi) -> None:
    old = api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="me/demo").oid
    api.upload_file(path_or_fileobj=b"2", path_in_repo="a", repo_id="me/demo")
    api.super_squash_history("me/demo", commit_message="one")
    assert [commit.title for commit in api.list_repo_commits("me/demo")] == ["one"]
    assert _content(api, "a", old) == b"1"
