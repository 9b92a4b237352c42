"""Who may see a repository, and copies of one: settings, access to gated files, duplicates."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.refusals import Refusal
from hubedit_localhub.routes.repos import own_spelling, private_of
from hubedit_localhub.store import Repo, now

GATES = {"auto": "auto", "manual": "manual", "false": False, "none": False, "False": False}


def settings(call: Call) -> Response:
    """Change who may see a repository, and whether its files are for named people only."""
    repo, body = call.owned(), call.json()
    changes: dict[str, Any] = {}
    private = private_of(body)
    if private is not None:
        changes["private"] = private
    if body.get("gated") is not None:
        gated = str(body["gated"])
        if gated not in GATES:
            raise Refusal(400, "Invalid gated: 'auto', 'manual' or false")
        changes["gated"] = GATES[gated]
    if changes:
        repo.change_settings(**changes)
    kept = repo.settings()
    return answer({"private": kept["private"], "gated": kept["gated"]})


def _known(call: Call, user: object) -> str:
    if not isinstance(user, str) or user not in call.store.accounts.users():
        raise Refusal(404, "User not found")
    return user


def _gated(call: Call) -> Repo:
    repo = call.owned()
    if not repo.settings()["gated"]:
        raise Refusal(400, "This repository is not gated")
    return repo


def grant(call: Call) -> Response:
    """Let a user read a gated repository."""
    repo, user = _gated(call), _known(call, call.json().get("user"))
    if user == repo.namespace or user in repo.members():
        raise Refusal(400, "This user already has access to the repository")
    repo.change_member(user, "read")
    return answer({"success": True})


def decide(call: Call) -> Response:
    """Accept or reject a user of a gated repository."""
    repo, body = _gated(call), call.json()
    user, status = _known(call, body.get("user")), body.get("status")
    if status not in ("accepted", "rejected", "pending"):
        raise Refusal(400, "Invalid status: 'accepted', 'rejected' or 'pending'")
    if (status == "accepted") == (user in repo.members()):
        raise Refusal(400, f"This user is already {'accepted' if status == 'accepted' else 'out'}")
    repo.change_member(user, "read" if status == "accepted" else None)
    return answer({"success": True})


def requests(call: Call) -> Response:
    """List who has access to a gated repository; nobody waits, for nobody can ask here."""
    repo = _gated(call)
    if call["status"] not in ("accepted", "rejected", "pending"):
        raise Refusal(404, "this Hub has no such address")
    members = sorted(repo.members()) if call["status"] == "accepted" else []
    return answer(
        [
            {
                "requestId": call.store.accounts.sign("user", user)[:24],
                "user": {"user": user, "fullname": user, "email": None},
                "status": "accepted",
                "timestamp": now(),
            }
            for user in members
        ]
    )


def duplicate(call: Call) -> Response:
    """Copy a repository into the namespace of the account."""
    repo, body, account = call.repo(), call.json(), call.need_account()
    repo.need_file_reader(account)
    to_id = own_spelling(call, str(body.get("repository")))
    if to_id.split("/")[0] != account.user or not account.writes:
        raise Refusal(403, f"You don't have the rights to create a {repo.type} there")
    private = private_of(body)
    url = f"{call.origin}/{repo.prefix}{to_id}"
    try:
        kept = repo.settings()["private"] if private is None else private
        call.store.duplicate(repo, to_id, kept)
    except Refusal as refusal:
        if refusal.status == 409:
            refusal.body["url"] = url
        raise
    return answer({"url": url, "name": to_id, "filesCopyPending": False})


ROUTES = (
    route("PUT", "/api/{kind}/{repo}/settings", settings),
    route("POST", "/api/{kind}/{repo}/user-access-request/grant", grant),
    route("POST", "/api/{kind}/{repo}/user-access-request/handle", decide),
    route("GET", "/api/{kind}/{repo}/user-access-request/{status}", requests),
    route("POST", "/api/{kind}/{repo}/duplicate", duplicate),
)
