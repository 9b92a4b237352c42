"""Discussions and pull requests as the client speaks of them: one story after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError


@pytest.fixture(scope="module")
def repo(client: HfApi, new_id: Callable[..., str]) -> str:
    """A repository to talk about."""
    found = new_id()
    lines = "".join(f"line {number}\n" for number in range(30)).encode()
    client.upload_file(path_or_fileobj=lines, path_in_repo="a.txt", repo_id=found)
    return found


def _propose(client: HfApi, repo: str, old: str, new: str, title: str = "Change") -> int:
    text = "".join(f"line {number}\n" for number in range(30)).replace(f"{old}\n", f"{new}\n")
    done = client.create_commit(
        repo,
        [CommitOperationAdd("a.txt", text.encode())],
        commit_message=title,
        commit_description="Because.",
        create_pr=True,
    )
    assert done.pr_url is not None
    assert done.pr_url.endswith(f"{repo}/discussions/{done.pr_num}")
    assert done.pr_revision == f"refs/pr/{done.pr_num}"
    return int(done.pr_num or 0)


def _kinds(details: Any) -> list[str]:
    return [event.type for event in details.events]


def test_a_discussion_is_opened_and_described(client: HfApi, repo: str) -> None:
    talk = client.create_discussion(repo, title="A question", description="Why *so*?")
    found = client.get_discussion_details(repo, talk.num)
    assert (found.title, found.status, found.is_pull_request) == ("A question", "open", False)
    assert (found.diff, found.target_branch, found.conflicting_files) == (None, None, None)
    assert found.author == repo.split("/")[0]
    assert (found.events[0].content, found.events[0].author) == ("Why *so*?", found.author)
    assert found.url.endswith(f"{repo}/discussions/{talk.num}")
    assert found.created_at.year > 2000


def test_a_comment_is_added_edited_and_hidden(client: HfApi, repo: str) -> None:
    num = client.create_discussion(repo, title="Comments").num
    comment = client.comment_discussion(repo, num, "first *words*")
    assert (comment.content, comment.edited, comment.hidden) == ("first *words*", False, False)
    assert "<em>words</em>" in comment.rendered
    edited = client.edit_discussion_comment(repo, num, comment.id, "other words")
    assert (edited.content, edited.edited, edited.number_of_edits) == ("other words", True, 1)
    assert len(edited.edit_history) == 1
    with pytest.warns(UserWarning, match="irreversible"):
        hidden = client.hide_discussion_comment(repo, num, comment.id)
    assert (hidden.hidden, hidden.content) == (True, "")
    with pytest.raises(HfHubHTTPError) as refused:
        client.edit_discussion_comment(repo, num, comment.id, "again")
    assert refused.value.response.status_code == 403


def test_a_comment_that_is_not_there_is_not_edited(client: HfApi, repo: str) -> None:
    num = client.create_discussion(repo, title="Nothing").num
    with pytest.raises(HfHubHTTPError) as refused:
        client.edit_discussion_comment(repo, num, "0" * 24, "x")
    assert refused.value.response.status_code == 404


def test_a_title_changes(client: HfApi, repo: str) -> None:
    num = client.create_discussion(repo, title="Old title").num
    event = client.rename_discussion(repo, num, "New title")
    assert (event.old_title, event.new_title) == ("Old title", "New title")
    assert client.get_discussion_details(repo, num).title == "New title"


def test_a_status_changes_once(client: HfApi, repo: str) -> None:
    num = client.create_discussion(repo, title="To close").num
    assert client.change_discussion_status(repo, num, "closed", comment="Done").new_status == (
        "closed"
    )
    assert _kinds(client.get_discussion_details(repo, num)) == [
        "comment",
        "comment",
        "status-change",
    ]
    with pytest.raises(BadRequestError):
        client.change_discussion_status(repo, num, "closed")
    assert client.change_discussion_status(repo, num, "open").new_status == "open"


def test_a_draft_becomes_a_merge(client: HfApi, repo: str) -> None:
    draft = client.create_pull_request(repo, title="A draft", description="Later")
    assert (draft.status, draft.is_pull_request) == ("draft", True)
    assert draft.git_reference == f"refs/pr/{draft.num}"
    with pytest.raises(HfHubHTTPError):
        client.merge_pull_request(repo, draft.num)
    client.upload_file(
        path_or_fileobj=b"d", path_in_repo="d.txt", repo_id=repo, revision=draft.git_reference
    )
    client.change_discussion_status(repo, draft.num, "open")
    client.merge_pull_request(repo, draft.num)
    found = client.get_discussion_details(repo, draft.num)
    assert found.status == "merged"
    assert found.merge_commit_oid == client.model_info(repo).sha
    assert _kinds(found) == ["comment", "commit", "status-change", "status-change"]


def test_a_pull_request_tells_diff_base_and_commit(client: HfApi, repo: str) -> None:
    num = _propose(client, repo, "line 3", "line three")
    found = client.get_discussion_details(repo, num)
    assert (found.status, found.target_branch) == ("open", "refs/heads/main")
    assert (found.conflicting_files, found.merge_commit_oid) == ([], None)
    assert "-line 3\n+line three\n" in found.diff
    assert found.diff.startswith("diff --git a/a.txt b/a.txt\n")
    commits = [event for event in found.events if event.type == "commit"]
    assert [commit.summary for commit in commits] == ["Change"]
    assert commits[0].oid == client.model_info(repo, revision=f"refs/pr/{num}").sha
    assert found.events[0].content == "Because."
    client.change_discussion_status(repo, num, "closed")


def test_a_merge_is_one_commit(client: HfApi, repo: str) -> None:
    num = _propose(client, repo, "line 7", "line seven", "Seven")
    before = client.model_info(repo).sha
    client.merge_pull_request(repo, num, comment="Good.")
    head, parent = client.list_repo_commits(repo)[:2]
    assert (head.title, parent.commit_id) == (f"Seven (#{num})", before)
    with pytest.raises(HfHubHTTPError):
        client.merge_pull_request(repo, num)
    with pytest.raises(HfHubHTTPError):
        client.change_discussion_status(repo, num, "closed")


def test_conflicts_are_named_and_stop_the_merge(client: HfApi, repo: str) -> None:
    one = _propose(client, repo, "line 20", "line x")
    two = _propose(client, repo, "line 20", "line y")
    client.merge_pull_request(repo, one)
    assert client.get_discussion_details(repo, two).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError) as refused:
        client.merge_pull_request(repo, two)
    assert refused.value.response.status_code == 409
    client.change_discussion_status(repo, two, "closed")
    with pytest.raises(HfHubHTTPError):
        client.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision=f"refs/pr/{two}"
        )


def test_a_pull_request_from_an_older_commit(client: HfApi, repo: str) -> None:
    parent = client.list_repo_commits(repo)[-1].commit_id
    done = client.create_commit(
        repo,
        [CommitOperationAdd("older.txt", b"x")],
        commit_message="From before",
        create_pr=True,
        parent_commit=parent,
    )
    files = client.list_repo_files(repo, revision=done.pr_revision)
    assert files == [".gitattributes", "older.txt"]


def test_an_outsider_proposes_and_does_not_decide(client: HfApi, other: HfApi, repo: str) -> None:
    def operations() -> list[CommitOperationAdd]:
        return [CommitOperationAdd("theirs.bin", b"\0theirs"), CommitOperationAdd("t.txt", b"t")]

    done = other.create_commit(repo, operations(), commit_message="Theirs", create_pr=True)
    num = int(done.pr_num or 0)
    for call in (
        lambda: other.merge_pull_request(repo, num),
        lambda: other.create_commit(repo, operations(), commit_message="Mine now"),
        lambda: other.create_tag(repo, tag="mine"),
        lambda: other.delete_repo(repo),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            call()
        assert refused.value.response.status_code == 403
    assert client.get_discussion_details(repo, num).author == other.whoami()["name"]
    other.rename_discussion(repo, num, "Theirs, renamed")
    other.change_discussion_status(repo, num, "closed")


def test_lists_are_filtered(client: HfApi, other: HfApi, repo: str) -> None:
    mine = client.create_discussion(repo, title="Mine").num
    theirs = other.create_discussion(repo, title="Theirs").num
    closed = client.create_discussion(repo, title="Shut").num
    client.change_discussion_status(repo, closed, "closed")

    def numbers(**query: Any) -> list[int]:
        return [talk.num for talk in client.get_repo_discussions(repo, **query)]

    everything = numbers()
    assert everything == sorted(everything, reverse=True)
    assert {mine, theirs, closed} <= set(everything)
    assert theirs in numbers(author=other.whoami()["name"])
    assert mine not in numbers(author=other.whoami()["name"])
    assert closed in numbers(discussion_status="closed")
    assert mine in numbers(discussion_status="open", discussion_type="discussion")
    assert mine not in numbers(discussion_type="pull_request")


def test_a_data_set_is_talked_about_too(client: HfApi, new_id: Callable[..., str]) -> None:
    data = new_id("dataset")
    num = client.create_pull_request(data, title="A draft", repo_type="dataset").num
    client.upload_file(
        path_or_fileobj=b"x",
        path_in_repo="x.txt",
        repo_id=data,
        repo_type="dataset",
        revision=f"refs/pr/{num}",
    )
    client.change_discussion_status(data, num, "open", repo_type="dataset")
    client.merge_pull_request(data, num, repo_type="dataset")
    assert "x.txt" in client.list_repo_files(data, repo_type="dataset")
