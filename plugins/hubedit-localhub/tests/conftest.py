"""Fixtures for the tests of the local Hub, and for those that may be pointed at another Hub."""

from __future__ import annotations

import json
import os
import secrets
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hubedit_localhub import LocalHub, serve
from hubedit_localhub.fixtures import localhub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

__all__ = ["localhub"]

CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
tags:
- shelf
base_model: {base}
base_model_relation: finetune
model-index:
- name: shelf
  results:
  - task: {{type: text-generation}}
    dataset: {{type: facts, name: Facts}}
    metrics: [{{type: accuracy, value: 0.5}}]
---
# Shelf

Text.
"""


@pytest.fixture
def api(localhub: LocalHub) -> HfApi:
    """The owner's client."""
    return localhub.api()


@pytest.fixture
def fsck(localhub: LocalHub) -> Callable[[str], str]:
    """Run `git fsck` on a model repository and return what it complains about."""

    def run(repo_id: str) -> str:
        path = localhub.root / "models" / f"{repo_id}.git"
        done = subprocess.run(
            ["git", "-C", str(path), "fsck", "--full", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(path), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"},
        )
        return done.stdout + done.stderr + ("" if done.returncode == 0 else f"rc {done.returncode}")

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a card, a text file and a small weight file."""
    place = tmp_path / "model"
    (place / "sub").mkdir(parents=True)
    (place / "README.md").write_text("---\nlicense: mit\ntags: [tiny]\n---\n# Tiny\n")
    (place / "sub" / "notes.txt").write_text("line\n" * 20)
    (place / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    return place


def _tensors(*names: str) -> bytes:
    """Return a safetensors file with two float32 numbers for each name."""
    places = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * at, 8 * at + 8]}
        for at, name in enumerate(names)
    }
    header = json.dumps(places).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 8 * len(names)


@pytest.fixture
def tensors() -> Callable[..., bytes]:
    """Return what makes a safetensors file of small tensors of these names."""
    return _tensors


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The Hub that the conformance tests speak to: `url`, and tokens of two users.

    A fresh local one, or what HUBEDIT_CONFORMANCE_ENDPOINT and …_TOKEN name. There, tests that
    need a token that reads only (…_READ_TOKEN) or another user (…_OTHER_TOKEN) are left out if
    none is given.
    """
    url = os.environ.get("HUBEDIT_CONFORMANCE_ENDPOINT")
    if url:
        yield SimpleNamespace(
            url=url.rstrip("/"),
            token=os.environ["HUBEDIT_CONFORMANCE_TOKEN"],
            read=os.environ.get("HUBEDIT_CONFORMANCE_READ_TOKEN"),
            other=os.environ.get("HUBEDIT_CONFORMANCE_OTHER_TOKEN"),
        )
        return
    with serve(tmp_path_factory.mktemp("conformance") / "hub") as local:
        yield SimpleNamespace(
            url=local.url,
            token=local.token,
            read=local.create_token("read"),
            other=local.create_user("ada"),
        )


def _client(hub: SimpleNamespace, token: str | None, variable: str = "") -> HfApi:
    # The local Hub, which CI speaks to, makes its own users, so there this is never reached. On a
    # Hub elsewhere the tests cannot make a user, and what needs one can only be left out.
    if token is None:
        pytest.skip(
            f"HUBEDIT_CONFORMANCE_ENDPOINT is set without {variable}, whose user this needs"
        )
    return HfApi(endpoint=hub.url, token=token)


@pytest.fixture(scope="session")
def client(hub: SimpleNamespace) -> HfApi:
    """The owner's client."""
    return _client(hub, hub.token)


@pytest.fixture(scope="session")
def reader(hub: SimpleNamespace) -> HfApi:
    """The owner's client with a token that reads only."""
    return _client(hub, hub.read, "HUBEDIT_CONFORMANCE_READ_TOKEN")


@pytest.fixture(scope="session")
def other(hub: SimpleNamespace) -> HfApi:
    """Another user's client."""
    return _client(hub, hub.other, "HUBEDIT_CONFORMANCE_OTHER_TOKEN")


@pytest.fixture(scope="session")
def nobody(hub: SimpleNamespace) -> HfApi:
    """A client without a token."""
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture(scope="session")
def new_id(client: HfApi) -> Iterator[Callable[..., str]]:
    """Return fresh ids, of repositories that exist unless told otherwise; they go with the run."""
    user, run = client.whoami()["name"], secrets.token_hex(3)
    made: list[tuple[str, str]] = []

    def new(repo_type: str = "model", create: bool = True, private: bool = False) -> str:
        repo_id = f"{user}/conformance-{run}-{len(made)}"
        made.append((repo_id, repo_type))
        if create:
            client.create_repo(repo_id, repo_type=repo_type, private=private)
        return repo_id

    yield new
    for repo_id, repo_type in made:
        client.delete_repo(repo_id, repo_type=repo_type, missing_ok=True)


@pytest.fixture
def fresh(new_id: Callable[..., str]) -> str:
    """The id of a new model repository with one commit."""
    return new_id()


@pytest.fixture(scope="session")
def shelf(
    client: HfApi, new_id: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """A model and a dataset that tests read and do not change."""
    repo, base = new_id(), new_id()
    files = {
        "README.md": CARD.format(base=base).encode(),
        "config.json": b'{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}',
        "model.safetensors": _tensors("a", "b"),
        "notes/one.txt": b"one\n",
        "notes/deep/two.txt": b"two\n",
        "odd dir/\u00e9 #%?&+.txt": b"odd\n",
    }
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    first = client.create_commit(repo, operations, commit_message="Fill", commit_description="Why.")
    client.create_tag(repo, tag="v1", tag_message="The first")
    client.create_branch(repo, branch="edits/one")
    second = client.create_commit(
        repo,
        [CommitOperationAdd("notes/one.txt", b"uno\n"), CommitOperationDelete("notes/deep/")],
        commit_message="Change",
        parent_commit=first.oid,
    )
    pull = client.create_commit(
        repo,
        [CommitOperationAdd("notes/one.txt", b"eins\n")],
        commit_message="Propose",
        create_pr=True,
    )
    data = new_id("dataset")
    client.upload_file(
        path_or_fileobj=b'{"text": "a"}\n{"text": "b"}\n',
        path_in_repo="data/train.jsonl",
        repo_id=data,
        repo_type="dataset",
    )
    return SimpleNamespace(
        repo=repo,
        cache=tmp_path_factory.mktemp("cache"),
        base=base,
        data=data,
        files=files,
        user=repo.split("/")[0],
        first=first.oid,
        second=second.oid,
        pull=pull.pr_num,
    )
