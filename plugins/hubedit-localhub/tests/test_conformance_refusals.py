"""What a Hub refuses, and which exception, status and words the client makes of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from speaking import add, commit, line, post

RACE = "The branch was updated since you opened this page"
NO_ENTRY = "A file with this name doesn't exist"
Refused = tuple[Callable[[HfApi, SimpleNamespace], Any], type[Exception], int | None, str]


REFUSED: dict[str, Refused] = {
    "a missing repository": (
        lambda c, s: c.model_info(f"{s.repo}-not"),
        RepositoryNotFoundError,
        404,
        "Repository Not Found",
    ),
    "a missing repository's tree": (
        lambda c, s: c.list_repo_files(f"{s.repo}-not"),
        RepositoryNotFoundError,
        404,
        "",
    ),
    "a missing repository's file": (
        lambda c, s: c.hf_hub_download(f"{s.repo}-not", "x"),
        RepositoryNotFoundError,
        404,
        "",
    ),
    "a name without an owner": (
        lambda c, s: c.model_info("no-such-name-anywhere-at-all"),
        RepositoryNotFoundError,
        404,
        "",
    ),
    "a missing revision": (
        lambda c, s: c.model_info(s.repo, revision="nope"),
        RevisionNotFoundError,
        404,
        "Invalid rev id: nope",
    ),
    "a missing revision's tree": (
        lambda c, s: c.list_repo_files(s.repo, revision="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "a missing revision's commits": (
        lambda c, s: c.list_repo_commits(s.repo, revision="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "a missing hash": (
        lambda c, s: c.hf_hub_download(s.repo, "config.json", revision="0" * 40),
        RevisionNotFoundError,
        404,
        "",
    ),
    "a missing file": (
        lambda c, s: c.hf_hub_download(s.repo, "nope"),
        RemoteEntryNotFoundError,
        404,
        "Entry Not Found",
    ),
    "a missing folder": (
        lambda c, s: list(c.list_repo_tree(s.repo, "nope")),
        RemoteEntryNotFoundError,
        404,
        "",
    ),
    "deleting a missing file": (
        lambda c, s: c.delete_file("nope", s.repo),
        RemoteEntryNotFoundError,
        404,
        NO_ENTRY,
    ),
    "deleting a missing folder": (
        lambda c, s: c.delete_folder("nope", s.repo),
        RemoteEntryNotFoundError,
        404,
        NO_ENTRY,
    ),
    "a stale parent": (
        lambda c, s: commit(c, s.repo, add("n"), parent_commit=s.first),
        HfHubHTTPError,
        412,
        RACE,
    ),
    "a commit to a branch that is not there": (
        lambda c, s: commit(c, s.repo, add("n"), revision="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "a path that climbs": (
        lambda c, s: post(c, f"models/{s.repo}/commit/main", *line("../x")),
        HfHubHTTPError,
        422,
        "",
    ),
    "a path with a backslash": (
        lambda c, s: post(c, f"models/{s.repo}/commit/main", *line("..\\x")),
        HfHubHTTPError,
        422,
        "",
    ),
    "a commit without a summary": (
        lambda c, s: post(c, f"models/{s.repo}/commit/main", line("x")[1]),
        BadRequestError,
        400,
        "",
    ),
    "an unknown operation": (
        lambda c, s: post(c, f"models/{s.repo}/commit/main", *line("x", "strange")),
        BadRequestError,
        400,
        "",
    ),
    "a repository that exists": (
        lambda c, s: c.create_repo(s.repo),
        HfHubHTTPError,
        409,
        "You already created this model repo",
    ),
    "a repository that differs in case alone": (
        lambda c, s: c.create_repo(s.repo.replace("conformance", "Conformance")),
        HfHubHTTPError,
        409,
        "",
    ),
    "a namespace of nobody's": (
        lambda c, s: c.create_repo("someone-who-is-not-here/x"),
        HfHubHTTPError,
        403,
        "You don't have the rights to create a model under that namespace",
    ),
    "a branch that exists": (
        lambda c, s: c.create_branch(s.repo, branch="edits/one"),
        HfHubHTTPError,
        409,
        "Reference refs/heads/edits/one already exists",
    ),
    "an ill-named branch": (
        lambda c, s: c.create_branch(s.repo, branch="a..b"),
        BadRequestError,
        400,
        "Invalid reference name",
    ),
    "a branch from nowhere": (
        lambda c, s: c.create_branch(s.repo, branch="b", revision="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "deleting main": (
        lambda c, s: c.delete_branch(s.repo, branch="main"),
        HfHubHTTPError,
        403,
        "Cannot delete refs/heads/main",
    ),
    "deleting a missing branch": (
        lambda c, s: c.delete_branch(s.repo, branch="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "a tag that exists": (
        lambda c, s: c.create_tag(s.repo, tag="v1"),
        HfHubHTTPError,
        409,
        "",
    ),
    "a tag on nothing": (
        lambda c, s: c.create_tag(s.repo, tag="v2", revision="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "deleting a missing tag": (
        lambda c, s: c.delete_tag(s.repo, tag="nope"),
        RevisionNotFoundError,
        404,
        "",
    ),
    "squashing a tag": (
        lambda c, s: c.super_squash_history(s.repo, branch="v1"),
        BadRequestError,
        400,
        "",
    ),
    "a missing discussion": (
        lambda c, s: c.get_discussion_details(s.repo, 999),
        HfHubHTTPError,
        404,
        "",
    ),
    "a title of nothing": (
        lambda c, s: c.create_discussion(s.repo, title="  "),
        BadRequestError,
        400,
        "Invalid title",
    ),
    "an unknown license": (
        lambda c, s: commit(c, s.repo, add("README.md", b"---\nlicense: asdf\n---\n")),
        ValueError,
        None,
        '- "license" must be one of',
    ),
    "a model index that is none": (
        lambda c, s: commit(c, s.repo, add("README.md", b"---\nmodel-index: 1\n---\n")),
        ValueError,
        None,
        "model-index",
    ),
    "a score without a dataset": (
        lambda c, s: commit(
            c,
            s.repo,
            add(
                "README.md",
                b"---\nmodel-index: [{name: x, results: [{task: {type: t}, "
                b"metrics: [{type: m, value: 1}]}]}]\n---\n",
            ),
        ),
        ValueError,
        None,
        "dataset.type",
    ),
    "a card that is no YAML": (
        lambda c, s: commit(c, s.repo, add("README.md", b"---\ntags: [a\n---\n")),
        ValueError,
        None,
        "Invalid metadata",
    ),
    "an unknown expand": (
        lambda c, s: c.model_info(s.repo, expand=["nonsense"]),
        BadRequestError,
        400,
        "",
    ),
    "granting access to what is not gated": (
        lambda c, s: c.grant_access(s.repo, s.user),
        BadRequestError,
        400,
        "",
    ),
    "removing a large file that is not here": (
        lambda c, s: c.permanently_delete_lfs_files(s.repo, [SimpleNamespace(file_oid="0" * 64)]),
        HfHubHTTPError,
        404,
        "",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(client: HfApi, shelf: SimpleNamespace, name: str) -> None:
    call, kind, status, words = REFUSED[name]
    with pytest.raises(kind) as refused:
        call(client, shelf)
    assert refused.type is kind
    assert words in str(refused.value)
    if status is not None:
        assert refused.value.response.status_code == status
        assert refused.value.response.headers["x-request-id"]
