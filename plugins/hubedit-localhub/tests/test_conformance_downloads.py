"""Files as the client downloads them: headers, bytes, snapshots, ranges; one check each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import get_session

ODD = "odd dir/\u00e9 #%?&+.txt"
Call = Callable[[HfApi, SimpleNamespace], Any]


def _weights(shelf: SimpleNamespace) -> tuple[str, int]:
    data = shelf.files["model.safetensors"]
    return hashlib.sha256(data).hexdigest(), len(data)


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _head(c: HfApi, s: SimpleNamespace, path: str, revision: str = "main") -> Any:
    url = hf_hub_url(s.repo, path, revision=revision, endpoint=c.endpoint)
    headers = {"authorization": f"Bearer {c.token}", "accept-encoding": "identity"}
    return get_session().head(url, headers=headers)


HEADS: dict[str, tuple[Call, Any]] = {
    "the commit of a branch": (
        lambda c, s: _head(c, s, "config.json").headers["x-repo-commit"] == s.second,
        True,
    ),
    "the commit of a tag": (
        lambda c, s: _head(c, s, "config.json", "v1").headers["x-repo-commit"] == s.first,
        True,
    ),
    "the etag of text is its git hash": (
        lambda c, s: (
            _head(c, s, "notes/one.txt").headers["etag"].strip('W/"') == _blob_id(b"uno\n")
        ),
        True,
    ),
    "the etag of weights is their sha256": (
        lambda c, s: (
            _head(c, s, "model.safetensors").headers["x-linked-etag"].strip('"') == _weights(s)[0]
        ),
        True,
    ),
    "the size of weights": (
        lambda c, s: (
            int(_head(c, s, "model.safetensors").headers["x-linked-size"]) == _weights(s)[1]
        ),
        True,
    ),
    "ranges are offered": (
        lambda c, s: _head(c, s, "notes/one.txt").headers.get("accept-ranges"),
        "bytes",
    ),
    "every answer has a request id": (
        lambda c, s: bool(_head(c, s, "notes/one.txt").headers.get("x-request-id")),
        True,
    ),
    "a missing file tells the commit": (
        lambda c, s: (
            _head(c, s, "nope").status_code,
            _head(c, s, "nope").headers["x-error-code"],
            _head(c, s, "nope").headers["x-repo-commit"] == s.second,
        ),
        (404, "EntryNotFound", True),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_headers(client: HfApi, shelf: SimpleNamespace, name: str) -> None:
    call, wanted = HEADS[name]
    assert call(client, shelf) == wanted


@pytest.mark.parametrize("path", ["config.json", "model.safetensors", ODD])
@pytest.mark.parametrize("revision", ["main", "v1", "edits/one", "refs/pr/1"])
def test_a_download_has_the_bytes(
    client: HfApi, shelf: SimpleNamespace, tmp_path: Path, path: str, revision: str
) -> None:
    found = client.hf_hub_download(shelf.repo, path, revision=revision, cache_dir=tmp_path)
    assert Path(found).read_bytes() == shelf.files[path]


def test_a_snapshot_is_the_tag(client: HfApi, shelf: SimpleNamespace, tmp_path: Path) -> None:
    place = Path(client.snapshot_download(shelf.repo, revision="v1", cache_dir=tmp_path))
    assert place.name == shelf.first
    found = {
        p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()
    }
    assert {path: found[path] for path in shelf.files} == shelf.files


def test_a_snapshot_into_a_folder_chooses(
    client: HfApi, shelf: SimpleNamespace, tmp_path: Path
) -> None:
    client.snapshot_download(
        shelf.data, repo_type="dataset", local_dir=tmp_path, allow_patterns="data/*"
    )
    assert [p.name for p in tmp_path.rglob("*.jsonl")] == ["train.jsonl"]


def test_a_download_goes_on_where_it_stopped(client: HfApi, shelf: SimpleNamespace) -> None:
    data = shelf.files["model.safetensors"]
    file = io.BytesIO(data[:100])
    file.seek(0, io.SEEK_END)
    url = hf_hub_url(shelf.repo, "model.safetensors", endpoint=client.endpoint)
    headers = {"authorization": f"Bearer {client.token}"}
    http_get(url, file, resume_size=100, expected_size=len(data), headers=headers)
    assert file.getvalue() == data


def test_the_file_system_reads(client: HfApi, shelf: SimpleNamespace) -> None:
    files = HfFileSystem(endpoint=client.endpoint, token=client.token, skip_instance_cache=True)
    assert files.read_text(f"{shelf.repo}@v1/notes/deep/two.txt") == "two\n"
    assert files.glob(f"{shelf.repo}/notes/*.txt") == [f"{shelf.repo}/notes/one.txt"]
    assert files.info(f"{shelf.repo}/model.safetensors")["size"] == _weights(shelf)[1]
    assert files.isdir(f"{shelf.repo}/odd dir")
    assert not files.exists(f"{shelf.repo}/nope")
    with files.open(f"{shelf.repo}/model.safetensors", "rb") as file:
        file.seek(8)
        assert file.read(1) == b"{"
    assert files.modified(f"{shelf.repo}/notes/one.txt").year > 2000
