"""Files as they are downloaded: whole, in ranges, or only what is known about them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from hubedit_localhub.app import route
from hubedit_localhub.calls import Call
from hubedit_localhub.history import Entry
from hubedit_localhub.names import check_path
from hubedit_localhub.refusals import Refusal

_BLOCK = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_IMAGES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp"}
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def wanted_range(header: str | None, size: int) -> range | None:
    """Return the bytes one `Range` header asks for, or None for all of them.

    Raises:
        Refusal: 416 the range begins behind the end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size or start >= stop:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refusal(416, f"the file has {size} bytes", headers=headers)
    return range(start, stop)


async def _from_disk(path: Path, span: range) -> AsyncIterator[bytes]:
    file = await run_in_threadpool(path.open, "rb")
    try:
        file.seek(span.start)
        left = len(span)
        while left and (block := await run_in_threadpool(file.read, min(_BLOCK, left))):
            left -= len(block)
            yield block
    finally:
        file.close()


def _type(path: str, entry: Entry, start: bytes) -> str:
    image = _IMAGES.get(PurePosixPath(path).suffix.lower())
    if image:
        return f"image/{image}"
    return (
        "application/octet-stream"
        if entry.pointer or b"\0" in start
        else "text/plain; charset=utf-8"
    )


def resolve(call: Call) -> Response:
    """Send a file of a revision, or its headers alone."""
    history = call.history()
    history.repo.need_file_reader(call.account)
    path = check_path(call["rest"], 400)
    commit = history.resolve(call["rev"])
    entry = history.file(commit, path)
    etag = f'"{entry.pointer.oid if entry.pointer else entry.oid}"'
    data = b"" if entry.pointer else history.blob(entry.oid)
    headers = {
        **_SAFE,
        "X-Repo-Commit": str(commit.id),
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Access-Control-Expose-Headers": "X-Repo-Commit, X-Linked-Size, X-Linked-Etag, ETag",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(PurePosixPath(path).name)}",
        "Content-Type": _type(path, entry, data[:512]),
    }
    if entry.pointer:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size)}
        if call.store.objects.size(entry.pointer.oid) != entry.size:
            # Not a 404: the client would remember that the file does not exist.
            raise Refusal(410, f"the content of {path} is gone from this Hub; upload it again")
    if call.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    span, status = range(entry.size), 200
    asked = call.headers.get("range")
    if asked and call.headers.get("if-range") in (None, etag):
        part = wanted_range(asked, entry.size)
        if part is not None:
            span, status = part, 206
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{entry.size}"
    headers["Content-Length"] = str(len(span))
    if call.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if entry.pointer:
        return StreamingResponse(
            _from_disk(call.store.objects.path(entry.pointer.oid), span), status, headers
        )
    return Response(data[span.start : span.stop], status, headers)


ROUTES = (route("GET HEAD", "/{pre}{repo}/(?:resolve|raw)/{rev}/{rest}", resolve),)
