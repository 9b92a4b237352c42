"""Trees, pages of trees, single paths and last commits."""

from __future__ import annotations

import pytest
from huggingface_hub import CommitOperationAdd, HfApi


@pytest.fixture(autouse=True)
def demo(api: HfApi) -> None:
    api.create_repo("me/demo")
    paths = [f"d{number % 3}/é {number:04d}.txt" for number in range(60)]
    operations = [CommitOperationAdd(path, path.encode()) for path in paths]
    api.create_commit("me/demo", operations, commit_message="many")


def test_every_page_of_an_expanded_tree_knows_the_last_commits(api: HfApi) -> None:
    api.upload_file(
        path_or_fileobj=b"new",
        path_in_repo="d0/é 0000.txt",
        repo_id="me/demo",
        commit_message="later",
    )
    items = list(api.list_repo_tree("me/demo", recursive=True, expand=True))
    assert len(items) == 64
    titles = {item.path: item.last_commit.title for item in items if item.last_commit}
    assert len(titles) == 64
    assert titles["d0/é 0000.txt"] == titles["d0"] == "later"
    assert titles["d1/é 0001.txt"] == titles["d1"] == "many"
    assert titles[".gitattributes"] == "initial commit"


def test_long_histories_come_in_pages(api: HfApi) -> None:
    for number in range(55):
        api.upload_file(path_or_fileobj=b"%d" % number, path_in_repo="n", repo_id="me/demo")
    commits = api.list_repo_commits("me/demo", formatted=True)
    assert len(commits) == 57
    assert len({commit.commit_id for commit in commits}) == 57
    assert commits[-1].title == "initial commit"
