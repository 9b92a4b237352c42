"""Large files that are here: listed, removed for good, shared, their tensors described."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from starlette.responses import Response

from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.names import KINDS
from hubedit_localhub.objects import check_oid
from hubedit_localhub.purging import large_files, remove_large_files
from hubedit_localhub.refusals import Refusal, no_entry
from hubedit_localhub.tensors import read_header

PAGE = 1000


def listed(call: Call) -> Response:
    """List the large files of the whole history, the newest first."""
    repo = call.writable()
    history = call.history()
    main = history.head("refs/heads/main")
    start = call.number("cursor", 0, 10**9)
    found = [named for named in reversed(large_files(history)) if repo.links(named.pointer.oid)]
    items: list[dict[str, Any]] = []
    for named in found[start : start + PAGE]:
        pushed = datetime.fromtimestamp(named.commit.commit_time, UTC)
        item = {
            "fileOid": named.pointer.oid,
            "oid": named.pointer.oid,
            "filename": named.path,
            "size": named.pointer.size,
            "pushedAt": pushed.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        present = history.find(main, named.path) if main is not None else None
        if present is not None and present.pointer == named.pointer:
            item["ref"] = "main"
        items.append(item)
    more = len(found) > start + PAGE
    return answer(items, headers={"Link": call.next_link(cursor=start + PAGE)} if more else None)


def remove(call: Call) -> Response:
    """Remove large files from the repository for good."""
    repo, deletions = call.owned(), call.json().get("deletions")
    shas = deletions.get("sha") if isinstance(deletions, dict) else None
    if not isinstance(deletions, dict) or not isinstance(shas, list):
        raise Refusal(400, "deletions must have a list of sha")
    oids = {check_oid(sha) for sha in shas}
    for oid in sorted(oids):
        if not repo.links(oid):
            raise Refusal(404, f"LFS object {oid} is not in this repository")
    remove_large_files(call.store, repo, oids, bool(deletions.get("rewriteHistory")))
    return answer({"success": True})


def share(call: Call) -> Response:
    """Put large files of this repository into another one, without sending them."""
    repo, body = call.repo(), call.json()
    repo.need_file_reader(call.account)
    wanted, files = body.get("target"), body.get("files")
    if not isinstance(wanted, dict) or not isinstance(files, list):
        raise Refusal(400, "target and files are needed")
    kind = f"{wanted.get('type') or 'model'}s"
    if kind not in KINDS:
        raise Refusal(400, f"this Hub keeps models and datasets, not {kind}")
    target = call.store.get(kind, str(wanted.get("name")), call.account)
    target.need_writer(call.account)
    failed = []
    for file in files:
        oid = check_oid(file.get("sha256") if isinstance(file, dict) else None)
        if repo.links(oid) and call.store.objects.size(oid) is not None:
            target.link(oid)
        else:
            failed.append({"sha256": oid, "error": "not in this repository"})
    return answer({"failed": failed})


def safetensors(call: Call) -> Response:
    """Describe the tensors of all shards that an index file names."""
    history = call.history()
    history.repo.need_file_reader(call.account)
    commit = history.resolve("main")
    try:
        index = json.loads(history.text(commit, call["rest"], limit=64 << 20) or "")
        shards = sorted({str(shard) for shard in index["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise no_entry(f"{call['rest']} is no index of safetensors files") from None
    headers: dict[str, Any] = {}
    for shard in shards:
        entry = history.file(commit, str(PurePosixPath(call["rest"]).parent / shard))
        path = call.store.objects.path(entry.pointer.oid) if entry.pointer else None
        header = read_header(path) if path else None
        if header is None:
            raise Refusal(422, f"{shard} is no safetensors file")
        headers[shard] = header
    return answer({"index": {"metadata": index.get("metadata") or {}}, "headers": headers})


ROUTES = (
    route("GET", "/api/{kind}/{repo}/lfs-files", listed),
    route("POST", "/api/{kind}/{repo}/lfs-files/batch", remove),
    route("POST", "/api/{kind}/{repo}/lfs-files/duplicate", share),
    route("GET", "/api/{kind}/{repo}/safetensors-metadata/{rest}", safetensors),
)
