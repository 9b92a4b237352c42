"""An attacker's script: each attempt refused, nothing told, the server still serving."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hubedit_localhub import Limits, LocalHub, serve
from hubedit_localhub.routes import ROUTES
from huggingface_hub import CommitOperationAdd

VALID = {
    "kind": "models",
    "pre": "",
    "repo": "me/demo",
    "rev": "main",
    "num": "1",
    "rest": "README.md",
    "comment": "0" * 24,
    "user": "me",
    "status": "accepted",
}
ATTACKS = (
    "..",
    "%2e%2e",
    "..%2f..%2fhub.json",
    "..%2F..%2F..%2F..%2Fetc%2Fpasswd",
    "%2Fetc%2Fpasswd",
    "..%5c..%5caccounts.json",
    "a%00.txt",
    "%ff%fe",
    ".git%2Fconfig",
    "x%0d%0aX-Evil:%201",
    "x" * 3000,
)
OIDS = (
    "../../../accounts.json",
    "0" * 63,
    "0" * 65,
    "F" * 64,
    "..%2f" + "0" * 59,
    "0" * 63 + "\n",
    "",
)


@pytest.fixture
def target(localhub: LocalHub) -> LocalHub:
    """A Hub with a public and a private repository of its owner's."""
    api = localhub.api()
    for name, private in (("me/demo", False), ("me/hidden", True)):
        api.create_repo(name, private=private)
        operations = [
            CommitOperationAdd("README.md", b"---\nlicense: mit\n---\nmarker-of-a-file\n"),
            CommitOperationAdd("w.bin", b"\0marker-of-weights"),
        ]
        api.create_commit(name, operations, commit_message="fill")
        api.create_discussion(name, title="A question")
        api.create_pull_request(name, title="A draft")
    (localhub.root.parent / "outside").write_text("marker-outside")
    return localhub


def _ask(
    hub: LocalHub, method: str, path: str, token: str | None = None, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=20)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read()
    finally:
        connection.close()


def _serving(hub: LocalHub) -> bool:
    return _ask(hub, "GET", "/api/ping")[0] == 200


def _path(shape: str, **values: str) -> str:
    shape = shape.replace("(?:/{rest})?", "/{rest}").replace("(?:resolve|raw)", "resolve")
    return re.sub(r"\{(\w+)\}", lambda hole: (VALID | values)[hole[1]], shape.replace("\\", ""))


def _fingerprint(hub: LocalHub) -> dict[str, bytes]:
    kept = [hub.root.parent / "outside", *hub.root.glob("accounts.json"), hub.root / "secret"]
    kept += hub.root.rglob("hub.json")
    kept += [path for path in hub.root.rglob("refs/**/*") if path.is_file()]
    return {str(path): path.read_bytes() for path in sorted(kept)}


HOLES = [
    (method, route.shape, hole)
    for route in ROUTES
    for method in route.methods
    for hole in re.findall(r"\{(\w+)\}", route.shape)
    if hole != "pre"
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda text: text[:30])
def test_no_path_parameter_leaves_its_place(
    target: LocalHub, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = _fingerprint(target)
    for method, shape, hole in HOLES:
        value = f"me%2F{attack}" if hole == "repo" else attack
        status, headers, body = _ask(
            target, method, _path(shape, **{hole: value}), target.token, b"{}"
        )
        assert 400 <= status < 500, (method, shape, hole, status)
        assert "x-evil" not in headers
        assert b"marker" not in body
        assert b"root:" not in body
    assert _fingerprint(target) == before
    assert _serving(target)
    assert target.token not in caplog.text


READ_TOKEN_MAY = {
    "preupload",
    "discussions",
    "comment",
    "title",
    "status",
    "edit",
    "hide",
    "verify",
}


def test_a_token_that_reads_changes_nothing(target: LocalHub) -> None:
    token = target.create_token("read")
    before = _fingerprint(target)
    header = b'{"key": "header", "value": {"summary": "x"}}'
    for route in ROUTES:
        for method in {"POST", "PUT", "DELETE"} & set(route.methods):
            # These two only describe; all others refuse, for what they are asked or by whom.
            if "{repo}" in route.shape and not route.shape.endswith(("paths-info/{rev}", "/hide")):
                status, _, _ = _ask(target, method, _path(route.shape), token, header)
                assert 400 <= status < 500, (method, route.shape, status)
    for path, body in (
        ("/api/repos/create", {"name": "new"}),
        ("/api/repos/move", {"fromRepo": "me/demo", "toRepo": "me/new"}),
        ("/api/models/me/demo/branch/new", {}),
        ("/api/models/me/demo/tag/main", {"tag": "new"}),
        ("/api/models/me/demo/duplicate", {"repository": "me/new"}),
        ("/api/models/me/demo/discussions/2/merge", {}),
        ("/api/models/me/demo/lfs-files/batch", {"deletions": {"sha": []}}),
    ):
        assert _ask(target, "POST", path, token, json.dumps(body).encode())[0] == 403, path
    delete = json.dumps({"name": "demo"}).encode()
    assert _ask(target, "DELETE", "/api/repos/delete", token, delete)[0] == 403
    assert _fingerprint(target) == before


def test_a_private_repository_of_another_is_nowhere_to_be_seen(target: LocalHub) -> None:
    ada = target.create_user("ada")
    before = _fingerprint(target)
    for token, code in ((ada, 404), (None, 401)):
        for route in ROUTES:
            if "{repo}" not in route.shape:
                continue
            for method in route.methods:
                path = _path(route.shape, repo="me/hidden")
                status, headers, body = _ask(target, method, path, token, b"{}")
                missing = _ask(target, method, path.replace("hidden", "nowhere"), token, b"{}")
                assert (status, body) == (missing[0], missing[2]), (method, path)
                assert status == code, (method, path)
                assert headers.get("x-error-code") == "RepoNotFound"
                assert b"marker" not in body
    assert _fingerprint(target) == before


def _upload_address(hub: LocalHub, content: bytes) -> str:
    oid = hashlib.sha256(content).hexdigest()
    wanted = {"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]}
    path = "/me/demo.git/info/lfs/objects/batch"
    body = json.loads(_ask(hub, "POST", path, hub.token, json.dumps(wanted).encode())[2])
    return str(body["objects"][0]["actions"]["upload"]["href"])


def test_forged_and_expired_addresses_take_nothing(
    target: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    content = b"honest"
    address = urlsplit(_upload_address(target, content))
    fields = dict(parse_qsl(address.query))
    forged = [
        {name: other for name, other in fields.items() if name != left_out} for left_out in fields
    ]
    forged += [fields | {name: f"{value}0"} for name, value in fields.items()]
    forged += [fields | {"repo": "me/hidden"}, fields | {"extra": "1"}, fields | {"oid": "0" * 64}]
    for query in forged:
        assert _ask(target, "PUT", f"/lfs/put?{urlencode(query)}", None, content)[0] == 403
    for action in ("part", "join"):
        method = "PUT" if action == "part" else "POST"
        assert _ask(target, method, f"/lfs/{action}?{address.query}", None, content)[0] == 403
    late = {name: value for name, value in fields.items() if name != "signature"}
    late["until"] = str(int(time.time()) - 1)
    parts = [item for pair in sorted(late.items()) for item in pair]
    late["signature"] = target.store.accounts.sign("put", *parts)
    status, _, body = _ask(target, "PUT", f"/lfs/put?{urlencode(late)}", None, content)
    assert status == 403
    assert b"expired" in body
    oid = hashlib.sha256(content).hexdigest()
    assert target.store.objects.size(oid) is None
    assert _ask(target, "PUT", f"/lfs/put?{address.query}", None, content)[0] == 200
    assert "refused with 403: PUT /lfs/put" in caplog.text
    for secret in (fields["signature"], late["signature"], target.token):
        assert secret not in caplog.text


@pytest.mark.parametrize("oid", OIDS)
def test_an_oid_is_a_hash_and_nothing_else(target: LocalHub, oid: str) -> None:
    before = _fingerprint(target)
    batch = {"operation": "upload", "objects": [{"oid": oid, "size": 3}]}
    header = json.dumps({"key": "header", "value": {"summary": "x"}})
    file = {"path": "x.bin", "algo": "sha256", "oid": oid, "size": 3}
    line = json.dumps({"key": "lfsFile", "value": file})
    for path, body in (
        ("/me/demo.git/info/lfs/objects/batch", json.dumps(batch)),
        ("/api/models/me/demo/lfs-verify", json.dumps({"oid": oid, "size": 3})),
        ("/api/models/me/demo/commit/main", f"{header}\n{line}"),
        ("/api/models/me/demo/lfs-files/batch", json.dumps({"deletions": {"sha": [oid]}})),
    ):
        assert _ask(target, "POST", path, target.token, body.encode())[0] == 422, path
    assert _fingerprint(target) == before


def test_bodies_that_are_too_large_are_refused(tmp_path: Path) -> None:
    limits = Limits(commit=100_000, object=1000)
    with serve(tmp_path / "hub", limits=limits) as hub:
        hub.api().create_repo("me/demo")
        big = b'{"key": "' + b"x" * 200_000 + b'"}'
        assert _ask(hub, "POST", "/api/models/me/demo/commit/main", hub.token, big)[0] == 413
        huge = b" " * (5 << 20)
        assert _ask(hub, "POST", "/api/repos/create", hub.token, huge)[0] == 413
        assert _ask(hub, "POST", "/api/validate-yaml", None, huge)[0] == 413
        wanted = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1001}]}
        path = "/me/demo.git/info/lfs/objects/batch"
        assert _ask(hub, "POST", path, hub.token, json.dumps(wanted).encode())[0] == 422
        address = urlsplit(_upload_address(hub, b"abc"))
        status, _, _ = _ask(hub, "PUT", f"{address.path}?{address.query}", None, b"abcd" * 100_000)
        assert status == 422
        assert list((hub.root / "lfs" / "incoming").iterdir()) == []
        deep = b"[" * 100_000
        assert _ask(hub, "POST", "/api/repos/create", hub.token, deep)[0] == 400
        with _raw(hub, b"GET /api/ping HTTP/1.1\r\nX: " + b"x" * 200_000) as connection:
            assert connection.recv(100).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
        assert _serving(hub)


def _raw(hub: LocalHub, data: bytes) -> socket.socket:
    host, port = hub.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=10)
    found.sendall(data)
    return found


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[LocalHub]:
    """A Hub that gives a request half a second."""
    with serve(tmp_path / "hub", limits=Limits(patience=0.5)) as hub:
        yield hub


def test_slow_requests_are_given_up_and_hold_nobody_else(impatient: LocalHub) -> None:
    head = b"POST /api/validate-yaml HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
    slow = [_raw(impatient, head) for _ in range(30)]
    stuck = [_raw(impatient, head + b"\r\n{") for _ in range(30)]
    began = time.monotonic()
    assert _serving(impatient)
    assert time.monotonic() - began < 2
    for connection in slow:
        with connection:
            assert connection.recv(1000) == b""
    for connection in stuck:
        with connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert _serving(impatient)


def test_a_trickle_is_given_up_too(impatient: LocalHub) -> None:
    with _raw(impatient, b"GET /api/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ") as connection:
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 8:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < 8
    assert _serving(impatient)


def test_an_answer_that_nobody_reads_is_given_up(
    impatient: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    api = impatient.api()
    api.create_repo("me/demo")
    api.upload_file(path_or_fileobj=b"\0" * 30_000_000, path_in_repo="w.bin", repo_id="me/demo")
    with _raw(impatient, b"GET /me/demo/resolve/main/w.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        deadline = time.monotonic() + 20
        while "its answer is not read" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert _serving(impatient)


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /api/ping HTTP/1.1\r\nHost: 127.0.0.1, evil.example\r\n\r\n",
        "GET /api/ping HTTP/1.1\r\nHost: 127.0.0.1\\r\\nX-Evil: 1\r\n\r\n",
        "GET /api/ping HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /api/ping HTTP/1.1\r\nHost: 127.0.0.1/evil\r\n\r\n",
        "GET /api/ping HTTP/1.1\r\n\r\n",
        "GET /api/ping\r\nX-Evil: 1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET /api/models/me/demo/tree/x%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET /me/x%0d%0aX-Evil:%201?token=x%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "POST /api/repos/create HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -2\r\n\r\n{}",
    ],
)
def test_headers_cannot_be_injected(target: LocalHub, request_text: str) -> None:
    with _raw(target, request_text.encode()) as connection:
        answer = connection.recv(4096)
    assert re.match(rb"HTTP/1\.1 (4\d\d|303) ", answer), answer
    assert b"\nx-evil" not in answer.lower()
    assert _serving(target)


def test_names_of_files_and_titles_reach_headers_and_pages_quoted(target: LocalHub) -> None:
    api = target.api()
    name = "a\"; filename=evil.html; x='é.txt"
    api.upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id="me/demo")
    url = "/me/demo/resolve/main/a%22%3B%20filename%3Devil.html%3B%20x%3D%27%C3%A9.txt"
    status, headers, _ = _ask(target, "GET", url)
    assert status == 200
    assert headers["content-disposition"].count(";") == 1
    talk = api.create_discussion("me/demo", title="one\r\nX-Evil: 1")
    assert talk.title == "one X-Evil: 1"


def test_a_refused_token_is_not_written_down(
    target: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert _ask(target, "GET", "/api/whoami-v2", "hf_secretsecretsecret")[0] == 401
    assert _ask(target, "GET", "/hf_secretsecretsecret/x/resolve/main/y")[0] == 401
    assert _ask(target, "GET", f"/me/hidden?token={target.token}")[0] == 303
    assert "refused with 401" in caplog.text
    for secret in ("hf_secretsecretsecret", target.token):
        assert secret not in caplog.text


def test_an_address_of_others_is_answered_when_asked_for_and_not_before(tmp_path: Path) -> None:
    with serve(tmp_path / "hub", host="0.0.0.0") as hub:
        assert hub.url.startswith("http://127.0.0.1:")
        request = b"GET /api/ping HTTP/1.1\r\nHost: hub.example:80\r\n\r\n"
        with _raw(hub, request) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        with _raw(hub, request.replace(b"hub.example", b"hub<script>")) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
