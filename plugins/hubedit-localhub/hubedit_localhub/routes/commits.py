"""Commits as the client makes them: how each file will travel, then all operations in one body."""

from __future__ import annotations

import base64
import binascii
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pygit2
from starlette.responses import Response

from hubedit_localhub.accounts import Account
from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.discussions import load_pull
from hubedit_localhub.history import History, Pointer, parse_pointer
from hubedit_localhub.names import check_path
from hubedit_localhub.objects import check_oid
from hubedit_localhub.pulls import open_pull, push_to_pull
from hubedit_localhub.refusals import Refusal, no_repo
from hubedit_localhub.store import Repo, signature
from hubedit_localhub.writing import Drop, Operation, Put, commit_to, operations_builder

LARGE = 10 * 1000 * 1000
MAX_MESSAGE = 64 * 1024
_PULL = re.compile(r"refs/pr/([1-9]\d{0,8})")


def contributor(call: Call, repo: Repo) -> Account:
    """Return the account if it may write to the revision, or open or own a pull request."""
    account = call.account
    if account is None:
        raise no_repo(known_user=False)
    if call.flag("create_pr"):
        return account
    pull = _PULL.fullmatch(call.params.get("rev", ""))
    if pull and load_pull(repo, int(pull[1]))["author"] == account.user:
        return account
    return repo.need_writer(account)


def _looks_binary(sample: bytes) -> bool:
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A sample may end within a character.
        return error.reason != "unexpected end of data" or error.start < len(sample) - 3
    return False


def _upload_mode(history: History, commit: pygit2.Commit, file: dict[str, Any]) -> dict[str, Any]:
    path, size = file.get("path"), file.get("size")
    if not isinstance(path, str) or not isinstance(size, int):
        raise Refusal(400, "each file needs a path and a size")
    check_path(path)
    try:
        sample = base64.b64decode(str(file.get("sample") or ""))
    except binascii.Error:
        raise Refusal(400, f"the sample of {path} is not base64") from None
    large = history.is_large_by_name(commit, path) or size > LARGE or _looks_binary(sample)
    result: dict[str, Any] = {
        "path": path,
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
    }
    present = history.find(commit, path)
    if present and not present.directory and (present.pointer is not None) == large:
        result["oid"] = present.pointer.oid if present.pointer else present.oid
    return result


def _ignored(rules: str, paths: list[str]) -> set[str]:
    """Return the paths that a `.gitignore` names, by git's own reading of it."""
    with tempfile.TemporaryDirectory() as place:
        git = pygit2.init_repository(place, bare=True)
        exclude = Path(place) / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text(rules)
        return {path for path in paths if git.path_is_ignored(path)}


def preupload(call: Call) -> Response:
    """Say for each file whether it is committed as text, goes through the LFS store, or is left."""
    repo = call.repo()
    contributor(call, repo)
    body = call.json()
    files, rules = body.get("files"), body.get("gitIgnore")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise Refusal(400, "files must be a list of objects")
    history = History(repo)
    commit = history.resolve(call["rev"])
    found = [_upload_mode(history, commit, file) for file in files]
    rules = rules if isinstance(rules, str) else history.text(commit, ".gitignore")
    if rules:
        ignored = _ignored(rules, [file["path"] for file in found])
        for file in found:
            file["shouldIgnore"] = file["path"] in ignored
    return answer({"files": found})


def _need_object(call: Call, repo: Repo, account: Account, oid: str, size: int | None) -> Pointer:
    stored = call.store.objects.size(oid)
    if stored is None or not call.store.sees_object(oid, repo, account):
        raise Refusal(422, f"LFS object {oid} was not uploaded")
    if size is not None and size != stored:
        raise Refusal(422, f"LFS object {oid} has {stored} bytes, not {size}")
    repo.link(oid)
    if call.store.objects.size(oid) is None:  # removed while it was being linked
        raise Refusal(422, f"LFS object {oid} was not uploaded")
    return Pointer(oid, stored)


def _put(call: Call, history: History, account: Account, key: str, value: dict[str, Any]) -> Put:
    path = check_path(str(value.get("path", "")))
    if key == "lfsFile":
        size = value.get("size")
        if value.get("algo", "sha256") != "sha256" or not isinstance(size, int | None):
            raise Refusal(400, f"{path}: only sha256 objects, their size a number")
        pointer = _need_object(call, history.repo, account, check_oid(value.get("oid")), size)
        return Put(path, str(history.git.create_blob(pointer.encode())), pointer)
    content = value.get("content")
    if not isinstance(content, str):
        raise Refusal(400, f"{path}: content is missing")
    try:
        encoded = value.get("encoding", "utf-8") == "base64"
        data = base64.b64decode(content, validate=True) if encoded else content.encode()
    except (binascii.Error, UnicodeEncodeError):
        raise Refusal(400, f"{path}: content is not {value.get('encoding', 'utf-8')}") from None
    # Text that is a pointer would otherwise reach into other repositories' files.
    named = parse_pointer(data)
    found = _need_object(call, history.repo, account, named.oid, named.size) if named else None
    return Put(path, str(history.git.create_blob(data)), found)


def _lines(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for line in body.split(b"\n"):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            key, value = item["key"], item["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refusal(400, "each line must be a JSON object with a key and a value") from None
        if not isinstance(key, str) or not isinstance(value, dict):
            raise Refusal(400, "each line must have a text as key and an object as value")
        found.append((key, value))
    return found


def _operations(
    call: Call, repo: Repo, account: Account
) -> tuple[str, str | None, list[Operation]]:
    history = History(repo)
    message, parent = "", None
    operations: list[Operation] = []
    for key, value in _lines(call.body):
        if key == "header":
            summary, description = (
                str(value.get("summary") or ""),
                str(value.get("description") or ""),
            )
            message = f"{summary.strip()}\n\n{description.strip()}".strip()
            parent = value.get("parentCommit")
        elif key in ("file", "lfsFile"):
            operations.append(_put(call, history, account, key, value))
        elif key in ("deletedFile", "deletedFolder"):
            path = check_path(str(value.get("path", "")).strip("/"))
            operations.append(Drop(path, folder=key == "deletedFolder"))
        else:
            raise Refusal(400, f"unknown operation {key!r}")
    if parent is not None and not re.fullmatch(r"[0-9a-fA-F]{5,40}", str(parent)):
        raise Refusal(400, "parentCommit must be the hash of a commit")
    if not message or len(message) > MAX_MESSAGE:
        raise Refusal(400, f"a commit needs a summary, and at most {MAX_MESSAGE} characters")
    return message, parent, operations


def commit(call: Call) -> Response:
    """Make one commit of all operations, on a branch, on a pull request, or as a new one."""
    repo = call.repo()
    account = contributor(call, repo)
    message, parent, operations = _operations(call, repo, account)
    build = operations_builder(operations)
    revision = call["rev"]
    if call.flag("create_pr"):
        return _as_pull(call, repo, account, message, parent, operations)
    if pull := _PULL.fullmatch(revision):
        made = push_to_pull(repo, int(pull[1]), account, message, build, parent)
    else:
        ref = f"refs/heads/{revision.removeprefix('refs/heads/')}"
        made = commit_to(repo, ref, account.user, message, build, parent)
    oid = str(made.id)
    return answer({"success": True, "commitOid": oid, "commitUrl": call.url(repo, "commit", oid)})


def _as_pull(
    call: Call,
    repo: Repo,
    account: Account,
    message: str,
    parent: str | None,
    operations: list[Operation],
) -> Response:
    history = History(repo)
    start = history.resolve(call["rev"])
    if parent and not str(start.id).startswith(parent.lower()):
        start = history.resolve(parent.lower())
    tree = operations_builder(operations)(history, start)
    author = signature(account.user)
    made = history.resolve(
        str(history.git.create_commit(None, author, author, message, tree, [start.id]))
    )
    subject, _, description = message.partition("\n")
    record = open_pull(repo, account, subject, description.strip(), start, made)
    oid = str(made.id)
    return answer(
        {
            "success": True,
            "commitOid": oid,
            "commitUrl": call.url(repo, "commit", oid),
            "pullRequestUrl": call.url(repo, "discussions", str(record["num"])),
        }
    )


ROUTES = (
    route("POST", "/api/{kind}/{repo}/preupload/{rev}", preupload),
    route("POST", "/api/{kind}/{repo}/commit/{rev}", commit, large=True),
)
