"""What the client reads from a Hub: one check each, against the shelf that nobody changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import get_session

ODD = "odd dir/\u00e9 #%?&+.txt"
Call = Callable[[HfApi, SimpleNamespace], Any]


def _weights(shelf: SimpleNamespace) -> tuple[str, int]:
    data = shelf.files["model.safetensors"]
    return hashlib.sha256(data).hexdigest(), len(data)


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _paths(items: Any) -> list[str]:
    return [item.path for item in items]


def _lfs(item: Any) -> tuple[str, int]:
    return item.lfs.sha256, item.lfs.size


def _json(c: HfApi, path: str) -> Any:
    headers = {"authorization": f"Bearer {c.token}"}
    return get_session().get(f"{c.endpoint}/api/{path}", headers=headers)


INFO: dict[str, tuple[Call, Any]] = {
    "the id is the id": (lambda c, s: c.model_info(s.repo).id == s.repo, True),
    "the author is the user": (lambda c, s: c.model_info(s.repo).author == s.user, True),
    "sha is the head of main": (lambda c, s: c.model_info(s.repo).sha == s.second, True),
    "sha of a tag": (lambda c, s: c.model_info(s.repo, revision="v1").sha == s.first, True),
    "sha of a branch with a slash": (
        lambda c, s: c.model_info(s.repo, revision="edits/one").sha == s.first,
        True,
    ),
    "sha of a full hash": (
        lambda c, s: c.model_info(s.repo, revision=s.first).sha == s.first,
        True,
    ),
    "sha of a short hash": (
        lambda c, s: c.model_info(s.repo, revision=s.first[:8]).sha == s.first,
        True,
    ),
    "sha of a pull request": (
        lambda c, s: c.model_info(s.repo, revision=f"refs/pr/{s.pull}").sha not in (None, s.second),
        True,
    ),
    "a new repository is public": (lambda c, s: c.model_info(s.repo).private, False),
    "a new repository is not gated": (lambda c, s: c.model_info(s.repo).gated, False),
    "a new repository is not disabled": (lambda c, s: c.model_info(s.repo).disabled, False),
    "dates are dates": (
        lambda c, s: (
            min(c.model_info(s.repo).created_at, c.model_info(s.repo).last_modified).year > 2000
        ),
        True,
    ),
    "the pipeline tag comes from the card": (
        lambda c, s: c.model_info(s.repo).pipeline_tag,
        "text-generation",
    ),
    "the library comes from the card": (
        lambda c, s: c.model_info(s.repo).library_name,
        "transformers",
    ),
    "tags are derived from card, files and config": (
        lambda c, s: (
            {"shelf", "license:mit", "safetensors", "gpt2", "en"} <= set(c.model_info(s.repo).tags)
        ),
        True,
    ),
    "tags name the base model and the relation": (
        lambda c, s: (
            {f"base_model:{s.base}", f"base_model:finetune:{s.base}"}
            <= set(c.model_info(s.repo).tags)
        ),
        True,
    ),
    "scores are read from the model index": (
        lambda c, s: c.model_info(s.repo).card_data.eval_results[0].metric_value,
        0.5,
    ),
    "the config is summed up": (
        lambda c, s: c.model_info(s.repo).config["model_type"],
        "gpt2",
    ),
    "parameters are counted": (
        lambda c, s: dict(c.model_info(s.repo).safetensors.parameters),
        {"F32": 4},
    ),
    "siblings are all files": (
        lambda c, s: len(c.model_info(s.repo).siblings) - len(s.files),
        0,
    ),
    "siblings know sizes if asked": (
        lambda c, s: {
            f.rfilename: f.size for f in c.model_info(s.repo, files_metadata=True).siblings
        }["notes/one.txt"],
        4,
    ),
    "siblings know hashes if asked": (
        lambda c, s: (
            {f.rfilename: f.blob_id for f in c.model_info(s.repo, files_metadata=True).siblings}[
                "notes/one.txt"
            ]
            == _blob_id(b"uno\n")
        ),
        True,
    ),
    "expand gives that and no more": (
        lambda c, s: (
            c.model_info(s.repo, expand=["sha"]).sha == s.second,
            c.model_info(s.repo, expand=["sha"]).tags,
        ),
        (True, None),
    ),
    "expand tells the bases": (
        lambda c, s: str(c.model_info(s.repo, expand=["baseModels"]).base_models).count(s.base),
        1,
    ),
    "expand counts the children": (
        lambda c, s: (
            "finetune"
            in str(c.model_info(s.base, expand=["childrenModelCount"]).children_model_count)
        ),
        True,
    ),
    "a dataset has information": (lambda c, s: c.dataset_info(s.data).id == s.data, True),
    "a dataset expands": (
        lambda c, s: c.dataset_info(s.data, expand=["private"]).private,
        False,
    ),
    "repo_info finds the kind": (
        lambda c, s: type(c.repo_info(s.data, repo_type="dataset")).__name__,
        "DatasetInfo",
    ),
    "a repository exists": (lambda c, s: c.repo_exists(s.repo), True),
    "a missing one does not": (lambda c, s: c.repo_exists(f"{s.repo}-not"), False),
    "a model is no dataset": (lambda c, s: c.repo_exists(s.repo, repo_type="dataset"), False),
    "a revision exists": (lambda c, s: c.revision_exists(s.repo, "edits/one"), True),
    "a missing revision does not": (lambda c, s: c.revision_exists(s.repo, "nope"), False),
    "a file exists": (lambda c, s: c.file_exists(s.repo, "notes/one.txt"), True),
    "a file existed": (lambda c, s: c.file_exists(s.repo, "notes/deep/two.txt"), False),
    "a file existed then": (
        lambda c, s: c.file_exists(s.repo, "notes/deep/two.txt", revision="v1"),
        True,
    ),
    "access may be checked": (lambda c, s: c.auth_check(s.repo), None),
    "another spelling leads there": (lambda c, s: c.model_info(s.repo.upper()).id == s.repo, True),
    "lists find by author": (
        lambda c, s: s.repo in {m.id for m in c.list_models(author=s.user)},
        True,
    ),
    "lists find by words": (
        lambda c, s: [m.id for m in c.list_models(search=s.repo)] == [s.repo],
        True,
    ),
    "lists find by base": (
        lambda c, s: [m.id for m in c.list_models(filter=f"base_model:{s.base}")] == [s.repo],
        True,
    ),
    "lists of datasets": (
        lambda c, s: s.data in {d.id for d in c.list_datasets(author=s.user)},
        True,
    ),
    "lists expand": (
        lambda c, s: next(iter(c.list_models(search=s.repo, expand=["sha"]))).sha == s.second,
        True,
    ),
    "lists have a limit": (lambda c, s: len(list(c.list_models(author=s.user, limit=1))), 1),
    "own repositories are listed with their size": (
        lambda c, s: next(r for r in c.list_user_repos() if r.id == s.repo).storage > 0,
        True,
    ),
    "the account has a name": (lambda c, s: c.whoami()["name"] == s.user, True),
    "the token has a role": (
        lambda c, s: c.whoami()["auth"]["accessToken"]["role"] in ("write", "fineGrained"),
        True,
    ),
    "a user has an overview": (lambda c, s: c.get_user_overview(s.user).username == s.user, True),
    "the card is read": (
        lambda c, s: (
            ModelCard.load(
                c.hf_hub_download(s.repo, "README.md", cache_dir=s.cache)
            ).data.base_model_relation
        ),
        "finetune",
    ),
}


@pytest.mark.parametrize("name", INFO)
def test_information(client: HfApi, shelf: SimpleNamespace, name: str) -> None:
    call, wanted = INFO[name]
    assert call(client, shelf) == wanted


TREES: dict[str, tuple[Call, Any]] = {
    "the top has files and folders": (
        lambda c, s: _paths(c.list_repo_tree(s.repo)),
        [".gitattributes", "README.md", "config.json", "model.safetensors", "notes", "odd dir"],
    ),
    "a folder is a folder": (
        lambda c, s: {type(i) for i in c.list_repo_tree(s.repo) if i.path == "notes"},
        {RepoFolder},
    ),
    "a folder is listed": (
        lambda c, s: _paths(c.list_repo_tree(s.repo, "notes", revision="v1")),
        ["notes/deep", "notes/one.txt"],
    ),
    "a folder of an odd name is listed": (
        lambda c, s: _paths(c.list_repo_tree(s.repo, "odd dir")),
        [ODD],
    ),
    "deep trees are listed": (
        lambda c, s: [
            i.path
            for i in c.list_repo_tree(s.repo, "notes", revision="v1", recursive=True)
            if isinstance(i, RepoFile)
        ],
        ["notes/deep/two.txt", "notes/one.txt"],
    ),
    "a text file has its git hash": (
        lambda c, s: (
            c.get_paths_info(s.repo, "notes/one.txt")[0].blob_id == _blob_id(b"uno\n"),
            c.get_paths_info(s.repo, "notes/one.txt")[0].lfs,
        ),
        (True, None),
    ),
    "a large file has its sha256": (
        lambda c, s: _lfs(c.get_paths_info(s.repo, "model.safetensors")[0]) == _weights(s),
        True,
    ),
    "last commits are told if asked": (
        lambda c, s: {i.path: i.last_commit.title for i in c.list_repo_tree(s.repo, expand=True)},
        {
            ".gitattributes": "initial commit",
            "README.md": "Fill",
            "config.json": "Fill",
            "model.safetensors": "Fill",
            "notes": "Change",
            "odd dir": "Fill",
        },
    ),
    "paths are described, missing ones left out": (
        lambda c, s: _paths(c.get_paths_info(s.repo, ["notes", "nope", ODD])),
        ["notes", ODD],
    ),
    "paths tell their last commit if asked": (
        lambda c, s: c.get_paths_info(s.repo, ODD, expand=True)[0].last_commit.title,
        "Fill",
    ),
    "all files are listed": (
        lambda c, s: (
            sorted({*s.files, ".gitattributes"}) == sorted(c.list_repo_files(s.repo, revision="v1"))
        ),
        True,
    ),
    "commits are listed newest first": (
        lambda c, s: [k.title for k in c.list_repo_commits(s.repo)],
        ["Change", "Fill", "initial commit"],
    ),
    "commits have messages and authors": (
        lambda c, s: [(k.message, k.authors == [s.user]) for k in c.list_repo_commits(s.repo)[1:2]],
        [("Why.", True)],
    ),
    "commits are formatted if asked": (
        lambda c, s: c.list_repo_commits(s.repo, formatted=True)[1].formatted_title,
        "Fill",
    ),
    "commits of a tag": (lambda c, s: len(c.list_repo_commits(s.repo, revision="v1")), 2),
    "branches are listed": (
        lambda c, s: sorted(r.name for r in c.list_repo_refs(s.repo).branches),
        ["edits/one", "main"],
    ),
    "tags are listed": (
        lambda c, s: [r.ref for r in c.list_repo_refs(s.repo).tags],
        ["refs/tags/v1"],
    ),
    "pull requests are listed if asked": (
        lambda c, s: [
            r.ref for r in c.list_repo_refs(s.repo, include_pull_requests=True).pull_requests
        ],
        ["refs/pr/1"],
    ),
    "and not otherwise": (lambda c, s: c.list_repo_refs(s.repo).pull_requests, None),
    "large files are listed": (
        lambda c, s: [
            (f.filename, (f.file_oid, f.size) == _weights(s)) for f in c.list_lfs_files(s.repo)
        ],
        [("model.safetensors", True)],
    ),
    "tensors are described": (
        lambda c, s: sorted(
            c.get_safetensors_metadata(s.repo).files_metadata["model.safetensors"].tensors
        ),
        ["a", "b"],
    ),
    "the data set's files are listed": (
        lambda c, s: c.list_repo_files(s.data, repo_type="dataset")[-1],
        "data/train.jsonl",
    ),
    "pages are linked": (
        lambda c, s: (
            'rel="next"' in _json(c, f"models/{s.repo}/tree/main?limit=2").headers.get("link", "")
        ),
        True,
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_and_history(client: HfApi, shelf: SimpleNamespace, name: str) -> None:
    call, wanted = TREES[name]
    assert call(client, shelf) == wanted
