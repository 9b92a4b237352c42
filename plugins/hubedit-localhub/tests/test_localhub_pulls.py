"""Pull requests and discussions: opened, talked about, merged, refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hubedit_localhub import LocalHub
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

LINES = "".join(f"line {number}\n" for number in range(40))


@pytest.fixture(autouse=True)
def demo(api: HfApi) -> None:
    api.create_repo("me/demo")
    api.upload_file(path_or_fileobj=LINES.encode(), path_in_repo="a.txt", repo_id="me/demo")


def _propose(api: HfApi, path: str, content: bytes, title: str = "Change it") -> int:
    commit = api.create_commit(
        "me/demo", [CommitOperationAdd(path, content)], commit_message=title, create_pr=True
    )
    assert commit.pr_num is not None
    return commit.pr_num


def _content(api: HfApi, path: str, revision: str = "main") -> bytes:
    return Path(api.hf_hub_download("me/demo", path, revision=revision)).read_bytes()


def test_a_pull_request_shows_its_diff_and_leaves_main_alone(api: HfApi) -> None:
    num = _propose(api, "a.txt", LINES.replace("line 7\n", "line seven\n").encode())
    details = api.get_discussion_details("me/demo", num)
    assert (details.num, details.status, details.is_pull_request) == (1, "open", True)
    assert (details.target_branch, details.conflicting_files) == ("refs/heads/main", [])
    assert details.diff is not None
    assert "-line 7\n+line seven\n" in details.diff
    assert b"line seven" not in _content(api, "a.txt")
    assert b"line seven" in _content(api, "a.txt", "refs/pr/1")
    refs = api.list_repo_refs("me/demo", include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests or ()] == ["refs/pr/1"]


def test_large_files_show_as_pointers_in_a_diff(api: HfApi) -> None:
    num = _propose(api, "w.safetensors", b"\0" * 1000)
    diff = api.get_discussion_details("me/demo", num).diff
    assert diff is not None
    assert "+version https://git-lfs.github.com/spec/v1\n+oid sha256:" in diff
    assert "+size 1000\n" in diff


def test_a_merge_is_one_commit_with_the_title_and_number(
    api: HfApi, fsck: Callable[[str], str]
) -> None:
    num = _propose(api, "a.txt", LINES.replace("line 7\n", "line seven\n").encode(), "Seven")
    second = api.create_commit(
        "me/demo",
        [CommitOperationAdd("b.txt", b"b\n")],
        commit_message="and b",
        revision=f"refs/pr/{num}",
    )
    moved = LINES.replace("line 30\n", "line thirty\n").encode()
    api.upload_file(path_or_fileobj=moved, path_in_repo="a.txt", repo_id="me/demo")
    api.merge_pull_request("me/demo", num, comment="well done")
    details = api.get_discussion_details("me/demo", num)
    head = api.list_repo_commits("me/demo")[0]
    assert details.status == "merged"
    assert details.merge_commit_oid == head.commit_id
    assert head.title == "Seven (#1)"
    assert f"- and b ({second.oid})" in head.message
    text = _content(api, "a.txt")
    assert b"line seven" in text
    assert b"line thirty" in text
    assert _content(api, "b.txt") == b"b\n"
    assert details.diff is not None
    assert "line thirty" not in details.diff
    assert "+line seven" in details.diff
    assert fsck("me/demo") == ""


def test_of_two_conflicting_pull_requests_the_second_is_refused(api: HfApi) -> None:
    one = _propose(api, "a.txt", LINES.replace("line 7\n", "line one\n").encode())
    two = _propose(api, "a.txt", LINES.replace("line 7\n", "line two\n").encode())
    api.merge_pull_request("me/demo", one)
    assert api.get_discussion_details("me/demo", two).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError) as refused:
        api.merge_pull_request("me/demo", two)
    assert refused.value.response.status_code == 409
    assert refused.value.response.json()["filesWithConflicts"] == ["a.txt"]
    assert api.get_discussion_details("me/demo", two).status == "open"
    assert b"line one" in _content(api, "a.txt")


def test_a_changed_weight_file_is_never_carried_to_a_new_name(api: HfApi) -> None:
    api.upload_file(path_or_fileobj=b"\0one", path_in_repo="one.bin", repo_id="me/demo")
    num = _propose(api, "one.bin", b"\0two")
    operations = [CommitOperationDelete("one.bin"), CommitOperationCopy("one.bin", "other.bin")]
    api.create_commit("me/demo", operations, commit_message="rename")
    assert api.get_discussion_details("me/demo", num).conflicting_files == ["one.bin"]
    assert _content(api, "other.bin") == b"\0one"


def test_two_pull_requests_with_odd_large_files_both_merge(api: HfApi) -> None:
    one, two = _propose(api, "one.xyz", b"\0one"), _propose(api, "two.xyz", b"\0two")
    api.merge_pull_request("me/demo", one)
    api.merge_pull_request("me/demo", two)
    attributes = _content(api, ".gitattributes")
    assert attributes.count(b"one.xyz") == attributes.count(b"two.xyz") == 1
    assert _content(api, "two.xyz") == b"\0two"


def test_a_pull_request_may_start_at_an_older_commit(api: HfApi) -> None:
    parent = api.model_info("me/demo").sha
    api.upload_file(path_or_fileobj=b"new", path_in_repo="b.txt", repo_id="me/demo")
    commit = api.create_commit(
        "me/demo",
        [CommitOperationAdd("c.txt", b"c")],
        commit_message="from before",
        parent_commit=parent,
        create_pr=True,
    )
    assert "b.txt" not in api.list_repo_files("me/demo", revision="refs/pr/1")
    assert "b.txt" not in str(api.get_discussion_details("me/demo", int(commit.pr_num or 0)).diff)
    api.merge_pull_request("me/demo", 1)
    assert {"b.txt", "c.txt"} <= set(api.list_repo_files("me/demo"))


def test_commits_to_a_pull_request_obey_their_parent(api: HfApi) -> None:
    num = _propose(api, "b.txt", b"1")
    stale = api.model_info("me/demo").sha
    with pytest.raises(HfHubHTTPError) as lost:
        api.create_commit(
            "me/demo",
            [CommitOperationAdd("b.txt", b"2")],
            commit_message="late",
            revision=f"refs/pr/{num}",
            parent_commit=stale,
        )
    assert lost.value.response.status_code == 412


def test_discussions_are_listed_by_kind_status_and_author(api: HfApi, localhub: LocalHub) -> None:
    for number in range(53):
        api.create_discussion("me/demo", title=f"Talk {number}")
    ada = localhub.api(localhub.create_user("ada"))
    num = _propose(ada, "b.txt", b"b", "From outside")
    api.change_discussion_status("me/demo", 3, "closed")

    def numbers(**query: object) -> list[int]:
        return [talk.num for talk in api.get_repo_discussions("me/demo", **query)]

    assert numbers() == list(range(54, 0, -1))
    assert numbers(discussion_type="pull_request") == [num]
    assert numbers(author="ada") == [num]
    assert numbers(discussion_status="closed") == [3]


def test_pull_requests_opened_at_once_get_numbers_of_their_own(
    api: HfApi, fsck: Callable[[str], str]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: _propose(api, f"{n}.txt", b"%d" % n), range(8)))
    assert sorted(numbers) == list(range(1, 9))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda num: api.merge_pull_request("me/demo", num), numbers))
    assert len(api.list_repo_files("me/demo")) == 10
    assert fsck("me/demo") == ""
