"""Large files on their way in, all files on their way out."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hubedit_localhub import Limits, LocalHub, serve
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import get_session


def _bytes(count: int, seed: int = 0) -> bytes:
    block = hashlib.sha256(seed.to_bytes(4, "big")).digest()
    return (block * (count // 32 + 1))[:count]


def test_a_large_file_travels_once(api: HfApi, localhub: LocalHub) -> None:
    api.create_repo("me/one")
    api.create_repo("me/two")
    content = _bytes(5_000_000)

    def put_count() -> int:
        return sum(request.startswith("PUT /lfs/") for request in localhub.requests)

    api.upload_file(path_or_fileobj=content, path_in_repo="a.safetensors", repo_id="me/one")
    assert put_count() == 1
    api.upload_file(path_or_fileobj=content, path_in_repo="b.safetensors", repo_id="me/two")
    assert put_count() == 1
    path = api.hf_hub_download("me/two", "b.safetensors")
    assert Path(path).read_bytes() == content
    assert Path(path).resolve().name == hashlib.sha256(content).hexdigest()


def test_the_store_keeps_a_large_file_by_its_hash(api: HfApi, localhub: LocalHub) -> None:
    api.create_repo("me/demo")
    content = _bytes(100_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id="me/demo")
    oid = hashlib.sha256(content).hexdigest()
    assert (localhub.root / "lfs" / oid[:2] / oid[2:4] / oid).read_bytes() == content
    assert list((localhub.root / "lfs" / "incoming").iterdir()) == []


def test_text_is_regular_and_the_rest_is_large(api: HfApi) -> None:
    api.create_repo("me/demo")
    wanted = {
        "a.json": (b"{}", False),
        "umlaut.txt": (("ü" * 300).encode(), False),
        "odd.txt": (("x" + "ü" * 300).encode(), False),
        "zero.txt": (b"a\0b", True),
        "latin.txt": (b"caf\xe9 " * 200, True),
        "weights.safetensors": (b"text all the same", True),
        "big.txt": (b"x" * 10_000_001, True),
        "empty.bin": (b"", False),
    }
    api.create_commit(
        "me/demo",
        [CommitOperationAdd(path, content) for path, (content, _) in wanted.items()],
        commit_message="all",
    )
    files = {i.path: i for i in api.get_paths_info("me/demo", list(wanted))}
    assert {path: files[path].lfs is not None for path in wanted} == {
        path: large for path, (_, large) in wanted.items()
    }
    for path, (content, _) in wanted.items():
        assert Path(api.hf_hub_download("me/demo", path)).read_bytes() == content


def test_an_upload_in_parts_arrives_whole(tmp_path: Path) -> None:
    content = _bytes(2_500_001, 3)
    limits = Limits(multipart_from=1_000_000, part=1_000_000)
    with serve(tmp_path / "hub", limits=limits) as hub:
        api = hub.api()
        api.create_repo("me/demo")
        api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id="me/demo")
        assert sum(request.startswith("PUT /lfs/part") for request in hub.requests) == 3
        path = api.hf_hub_download("me/demo", "w.safetensors", cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == content
        assert list((hub.root / "lfs" / "incoming").iterdir()) == []


def _batch(hub: LocalHub, oid: str, size: int) -> dict[str, str]:
    answer = get_session().post(
        f"{hub.url}/me/demo.git/info/lfs/objects/batch",
        json={
            "operation": "upload",
            "objects": [{"oid": oid, "size": size}],
            "ref": {"name": "main"},
        },
        headers={"authorization": f"Bearer {hub.token}"},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["objects"][0]["actions"]["upload"]


def test_upload_addresses_take_what_was_signed_and_nothing_else(localhub: LocalHub) -> None:
    localhub.api().create_repo("me/demo")
    content = b"honest"
    oid = hashlib.sha256(content).hexdigest()
    href = _batch(localhub, oid, len(content))["href"]
    put = get_session().put
    assert put(href.replace(oid, "0" * 64), content=content).status_code == 403
    assert put(href.replace("size=6", "size=60"), content=content).status_code == 403
    assert put(href.replace("until=", "until=9"), content=content).status_code == 403
    assert put(f"{localhub.url}/lfs/put", content=content).status_code == 403
    assert put(href, content=b"forged").status_code == 422
    assert put(href, content=content * 2).status_code == 422
    assert put(href, content=b"").status_code == 422
    assert localhub.store.objects.size(oid) is None
    assert put(href, content=content).status_code == 200
    assert localhub.store.objects.size(oid) == 6


def test_knowing_a_hash_does_not_open_a_private_file(localhub: LocalHub) -> None:
    secret = b"private weights" * 100
    mine, theirs = localhub.api(), localhub.api(localhub.create_user("ada"))
    mine.create_repo("me/private", private=True)
    mine.upload_file(path_or_fileobj=secret, path_in_repo="w.bin", repo_id="me/private")
    theirs.create_repo("ada/demo")
    oid = hashlib.sha256(secret).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(secret)}\n"
    headers = {"authorization": f"Bearer {theirs.token}"}
    for key, value in (
        ("lfsFile", {"path": "w.bin", "algo": "sha256", "oid": oid}),
        ("file", {"path": "w.txt", "content": pointer}),
    ):
        lines = [{"key": "header", "value": {"summary": "steal"}}, {"key": key, "value": value}]
        body = "\n".join(map(json.dumps, lines))
        answer = get_session().post(
            f"{localhub.url}/api/models/ada/demo/commit/main",
            content=body.encode(),
            headers=headers,
        )
        assert answer.status_code == 422
    assert theirs.list_repo_files("ada/demo") == [".gitattributes"]


def test_ranges(api: HfApi, localhub: LocalHub) -> None:
    api.create_repo("me/demo")
    content = _bytes(10_000)
    for path in ("large.bin", "small.txt"):
        data = content if path == "large.bin" else content.hex().encode()[:10_000]
        api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id="me/demo")
        url = hf_hub_url("me/demo", path, endpoint=localhub.url)

        def get(asked: str, url: str = url) -> tuple[int, bytes, str | None]:
            answer = get_session().get(url, headers={"range": asked, "accept-encoding": "identity"})
            return answer.status_code, answer.content, answer.headers.get("content-range")

        assert get("bytes=0-9") == (206, data[:10], "bytes 0-9/10000")
        assert get("bytes=9990-") == (206, data[9990:], "bytes 9990-9999/10000")
        assert get("bytes=-5") == (206, data[-5:], "bytes 9995-9999/10000")
        assert get("bytes=5-99999") == (206, data[5:], "bytes 5-9999/10000")
        assert get("bytes=10000-")[::2] == (416, "bytes */10000")
        assert get("bytes=nonsense")[:2] == (200, data)
        assert get("bytes=5-2")[:2] == (200, data)


def test_an_interrupted_download_goes_on_where_it_stopped(api: HfApi, localhub: LocalHub) -> None:
    from huggingface_hub.file_download import http_get

    api.create_repo("me/demo")
    content = _bytes(3_000_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id="me/demo")
    url = hf_hub_url("me/demo", "w.safetensors", endpoint=localhub.url)
    file = io.BytesIO(content[:2_000_000])
    file.seek(0, io.SEEK_END)
    http_get(url, file, resume_size=2_000_000, expected_size=3_000_000)
    assert file.getvalue() == content
    assert localhub.bytes_served("/me/demo/resolve/") == 1_000_000


def test_a_missing_file_is_remembered_as_missing(api: HfApi, tmp_path: Path) -> None:
    api.create_repo("me/demo")
    sha = str(api.model_info("me/demo").sha)
    with pytest.raises(RemoteEntryNotFoundError) as missing:
        api.hf_hub_download("me/demo", "nope.json", cache_dir=tmp_path / "cache")
    assert missing.value.response.headers["x-repo-commit"] == sha
    assert (tmp_path / "cache" / "models--me--demo" / ".no_exist" / sha / "nope.json").exists()


def test_a_snapshot_of_a_tag_holds_every_file(api: HfApi, folder: Path, localhub: LocalHub) -> None:
    api.create_repo("me/demo")
    api.upload_folder(repo_id="me/demo", folder_path=folder)
    api.create_tag("me/demo", tag="v1")
    api.delete_file("model.safetensors", "me/demo")
    place = Path(api.snapshot_download("me/demo", revision="v1"))
    for file in folder.rglob("*"):
        if file.is_file():
            assert (place / file.relative_to(folder)).read_bytes() == file.read_bytes()
    served = localhub.bytes_served("/me/demo/resolve/")
    assert Path(api.snapshot_download("me/demo", revision="v1")) == place
    assert localhub.bytes_served("/me/demo/resolve/") == served


@pytest.mark.parametrize(
    "path",
    [
        "%2e%2e/%2e%2e/hub.json",
        "..%2f..%2fhub.json",
        "%2Fetc%2Fpasswd",
        "a%00b",
        "%ff%fe",
        ".git/config",
    ],
)
def test_downloads_never_leave_the_repository(localhub: LocalHub, path: str) -> None:
    import http.client

    localhub.api().create_repo("me/demo")
    for address in (
        f"/me/demo/resolve/main/{path}",
        f"/me/demo/resolve/{path}/README.md",
        f"/api/models/me/demo/tree/main/{path}",
        f"/api/models/{path}/x",
        f"/{path}",
    ):
        connection = http.client.HTTPConnection(localhub.url.removeprefix("http://"))
        connection.request("GET", address)
        answer = connection.getresponse()
        assert answer.status in (400, 401, 404), address
        assert b"createdAt" not in answer.read()
        connection.close()


def test_files_are_sent_so_that_a_browser_runs_nothing(api: HfApi, localhub: LocalHub) -> None:
    api.create_repo("me/demo")
    api.upload_file(path_or_fileobj=b"<script>1</script>", path_in_repo="x.html", repo_id="me/demo")
    answer = get_session().get(hf_hub_url("me/demo", "x.html", endpoint=localhub.url))
    assert answer.headers["content-type"].startswith("text/plain")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_other_requests_go_on_during_an_upload(localhub: LocalHub) -> None:
    api = localhub.api()
    api.create_repo("me/demo")
    content = os.urandom(1000)
    href = _batch(localhub, hashlib.sha256(content).hexdigest(), 1000)["href"]
    asked: list[int] = []

    def body() -> Iterator[bytes]:
        yield content[:500]
        asked.append(len(api.list_repo_files("me/demo")))
        yield content[500:]

    answer = get_session().put(href, content=body(), headers={"content-length": "1000"})
    assert (answer.status_code, asked) == (200, [1])


def test_a_lost_object_is_not_taken_for_a_missing_file(api: HfApi, localhub: LocalHub) -> None:
    api.create_repo("me/demo")
    api.upload_file(path_or_fileobj=b"\0x", path_in_repo="x.bin", repo_id="me/demo")
    localhub.store.objects.path(hashlib.sha256(b"\0x").hexdigest()).unlink()
    answer = get_session().get(hf_hub_url("me/demo", "x.bin", endpoint=localhub.url))
    assert (answer.status_code, answer.headers.get("x-error-code")) == (410, None)


def test_a_commit_body_has_a_limit(tmp_path: Path) -> None:
    with serve(tmp_path / "hub", limits=Limits(commit=1_000_000)) as hub:
        api = hub.api()
        api.create_repo("me/demo")
        with pytest.raises(HfHubHTTPError) as refused:
            api.upload_file(
                path_or_fileobj=b"x" * 9_000_000, path_in_repo="x.txt", repo_id="me/demo"
            )
        assert refused.value.response.status_code == 413
