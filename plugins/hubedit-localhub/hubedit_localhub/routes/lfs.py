"""Large files on their way in: what is needed, where to send it, whether it arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from hubedit_localhub.app import route, stream
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.objects import Incoming, Part, check_oid
from hubedit_localhub.refusals import Refusal, no_repo
from hubedit_localhub.store import Repo

LIFETIME_SECONDS = 3600
Sink = TypeVar("Sink", Incoming, Part)
_BLOCK = 4 << 20


def _signed(call: Call, action: str, **fields: object) -> str:
    """Return an address that itself says what may be sent there: uploads carry no token."""
    fields["until"] = int(time.time()) + LIFETIME_SECONDS
    parts = [item for pair in sorted(fields.items()) for item in pair]
    query = urlencode({**fields, "signature": call.store.accounts.sign(action, *parts)})
    return f"{call.origin}/lfs/{action}?{query}"


def _checked(call: Call, action: str) -> dict[str, str]:
    fields = dict(call.query)
    signature = fields.pop("signature", "")
    parts = [item for pair in sorted(fields.items()) for item in pair]
    if not call.store.accounts.check(signature, action, *parts):
        raise Refusal(403, "the signature of this upload address is not ours")
    if int(fields["until"]) < time.time():
        raise Refusal(403, "this upload address has expired; commit again")
    return fields


def _upload(call: Call, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    fields: dict[str, object] = {"oid": oid, "size": size, "kind": repo.kind, "repo": repo.id}
    if size < call.limits.multipart_from:
        return {"href": _signed(call, "put", **fields), "header": {}}
    part, upload = call.limits.part, call.store.objects.begin_parts()
    count = -(-size // part)
    header = {"chunk_size": str(part)}
    for number in range(1, count + 1):
        length = min(part, size - part * (number - 1))
        start = part * (number - 1)
        header[f"{number:05d}"] = _signed(
            call, "part", upload=upload, number=number, start=start, size=length
        )
    return {"href": _signed(call, "join", upload=upload, count=count, **fields), "header": header}


def batch(call: Call) -> Response:
    """Say which objects must be sent, and where; those that are there already need no upload."""
    repo, body = call.repo(), call.json()
    account = call.account
    if account is None:
        raise no_repo(known_user=False)
    if body.get("operation") != "upload":
        raise Refusal(422, "only uploads; files are downloaded by their resolve address")
    ref = body.get("ref")
    name = ref.get("name") if isinstance(ref, dict) else None
    if isinstance(name, str) and not name.startswith("refs/pr/"):
        repo.need_writer(account)
    objects = []
    for wanted in body.get("objects") or ():
        if not isinstance(wanted, dict):
            raise Refusal(422, "each object must have an oid and a size")
        oid, size = check_oid(wanted.get("oid")), wanted.get("size")
        if not isinstance(size, int) or not 0 <= size <= call.limits.object:
            raise Refusal(422, f"Invalid size of {oid}: at most {call.limits.object} bytes")
        found: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if not call.store.sees_object(oid, repo, account):
            verify = f"{call.origin}/api/{repo.kind}/{repo.id}/lfs-verify"
            found["actions"] = {
                "upload": _upload(call, repo, oid, size),
                "verify": {"href": verify, "header": {}},
            }
        objects.append(found)
    multipart = any(
        "chunk_size" in o.get("actions", {}).get("upload", {}).get("header", {}) for o in objects
    )
    return answer(
        {
            "transfer": "multipart" if multipart else "basic",
            "objects": objects,
            "hash_algo": "sha256",
        },
        headers={"Content-Type": "application/vnd.git-lfs+json"},
    )


def _target(call: Call, fields: dict[str, str]) -> Repo:
    repo = call.store.find(fields["kind"], fields["repo"])
    if repo is None:
        raise Refusal(404, "the repository is gone", "RepoNotFound")
    return repo


async def _receive(
    request: Request, size: int, sink: Sink, finish: Callable[[Sink], Response]
) -> Response:
    """Write the body block by block in threads: other requests go on, and so does this body."""
    writing: asyncio.Task[None] | None = None
    try:
        held: list[bytes] = []
        total, waiting = 0, 0
        async for block in request.stream():
            total += len(block)
            if total > size:
                raise Refusal(
                    422, f"more than the announced {size} bytes", headers={"Connection": "close"}
                )
            held.append(block)
            waiting += len(block)
            if waiting >= _BLOCK:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(run_in_threadpool(sink.write, held))
                held, waiting = [], 0
        if writing is not None:
            await writing
        await run_in_threadpool(sink.write, held)
        return await run_in_threadpool(finish, sink)
    finally:
        if writing is not None and not writing.done():
            await asyncio.wait([writing])
        sink.discard()


async def put(call: Call, request: Request) -> Response:
    """Receive a whole object."""
    fields = _checked(call, "put")
    repo, size = _target(call, fields), int(fields["size"])

    def finish(incoming: Incoming) -> Response:
        incoming.finish(fields["oid"], size)
        repo.link(fields["oid"])
        return Response(headers={"ETag": f'"{fields["oid"]}"'})

    return await _receive(request, size, Incoming(call.store.objects), finish)


async def part(call: Call, request: Request) -> Response:
    """Receive one part of an object."""
    fields = _checked(call, "part")
    number, size = int(fields["number"]), int(fields["size"])

    def finish(part: Part) -> Response:
        if part.size != size:
            raise Refusal(422, f"this part has {part.size} bytes, not {size}")
        part.finish()
        return Response(headers={"ETag": f'"{fields["upload"]}-{number}"'})

    sink = call.store.objects.part(fields["upload"], number, int(fields["start"]))
    return await _receive(request, size, sink, finish)


def join(call: Call) -> Response:
    """Put the parts of an object together; a second call finds it done."""
    fields = _checked(call, "join")
    repo, oid, size = _target(call, fields), fields["oid"], int(fields["size"])
    if not (repo.links(oid) and call.store.objects.size(oid) == size):
        call.store.objects.finish_parts(fields["upload"], int(fields["count"]), oid, size)
        repo.link(oid)
    return answer({"oid": oid})


def verify(call: Call) -> Response:
    """Say whether an object arrived."""
    call.need_account()
    repo, body = call.repo(), call.json()
    oid = check_oid(body.get("oid"))
    if not repo.links(oid) or call.store.objects.size(oid) != body.get("size"):
        raise Refusal(404, f"LFS object {oid} was not uploaded")
    return answer({"success": True})


ROUTES = (
    route("POST", r"/{pre}{repo}\.git/info/lfs/objects/batch", batch),
    stream("PUT", "/lfs/put", put),
    stream("PUT", "/lfs/part", part),
    route("POST", "/lfs/join", join),
    route("POST", "/api/{kind}/{repo}/lfs-verify", verify),
)
