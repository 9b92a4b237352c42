"""Discussions and pull requests over HTTP."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from hubedit_localhub import discussions, pulls
from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.history import History
from hubedit_localhub.store import Repo

PAGE = 50


def listed(call: Call) -> Response:
    """List discussions, newest first."""
    repo, query = call.repo(), call.query
    start = call.number("p", 0, 10**6) * PAGE
    kind, status = query.get("type", "all"), query.get("status", "all")
    found, count = discussions.page(repo, kind, status, query.get("author"), start, PAGE)
    items = [discussions.brief(repo, record) for record in found]
    return answer({"discussions": items, "count": count, "start": start})


def detailed(repo: Repo, record: discussions.Record, diff: bool) -> dict[str, Any]:
    """Return everything about a discussion, with the diff of a pull request if asked for."""
    found = discussions.brief(repo, record) | {"events": list(discussions.events(record))}
    if record["isPullRequest"]:
        history = History(repo)
        changes = {"base": pulls.BASE}
        if record.get("mergeCommitId"):
            changes["mergeCommitId"] = record["mergeCommitId"]
        found |= {"changes": changes, "filesWithConflicts": pulls.conflicts(history, record)}
        if diff:
            found["diff"] = pulls.diff_of(history, record)
    return found


def details(call: Call) -> Response:
    """Describe one discussion."""
    repo = call.repo()
    diff = call.flag("diff") and repo.opens_to(call.account)
    return answer(detailed(repo, discussions.load(repo, int(call["num"])), diff))


def create(call: Call) -> Response:
    """Open a discussion, or a pull request as a draft on the head of main."""
    repo, account, body = call.repo(), call.need_account(), call.json()
    title = discussions.clean_title(body.get("title"))
    text = discussions.clean_text(body.get("description") or "")
    if body.get("pullRequest"):
        start = History(repo).resolve(pulls.BASE)
        record = pulls.open_pull(repo, account, title, text, start, None)
    else:
        with repo.lock():
            record = discussions.open_record(repo, account.user, title, text, False, "open", [])
    url = call.url(repo, "discussions", str(record["num"]))
    return answer({"num": record["num"], "url": url, "pullRequest": record["isPullRequest"]})


def comment(call: Call) -> Response:
    """Add a comment."""
    account = call.need_account()
    event = discussions.add_comment(
        call.repo(), int(call["num"]), account, call.json().get("comment")
    )
    return answer({"newMessage": event})


def rename(call: Call) -> Response:
    """Change the title."""
    account = call.need_account()
    event = discussions.rename(call.repo(), int(call["num"]), account, call.json().get("title"))
    return answer({"newTitle": event})


def status(call: Call) -> Response:
    """Open or close."""
    account, body = call.need_account(), call.json()
    event = discussions.set_status(
        call.repo(), int(call["num"]), account, body.get("status"), body.get("comment")
    )
    return answer({"newStatus": event})


def edit(call: Call) -> Response:
    """Rewrite a comment."""
    repo, account = call.repo(), call.need_account()
    content = discussions.clean_text(call.json().get("content"))
    event = discussions.change_comment(repo, int(call["num"]), account, call["comment"], content)
    return answer({"updatedComment": event})


def hide(call: Call) -> Response:
    """Hide a comment for good."""
    account = call.need_account()
    event = discussions.change_comment(
        call.repo(), int(call["num"]), account, call["comment"], None
    )
    return answer({"updatedComment": event})


def merge(call: Call) -> Response:
    """Merge a pull request into main as one commit."""
    repo = call.writable()
    text = call.json().get("comment")
    note = discussions.clean_text(text) if text else None
    event = pulls.merge(repo, int(call["num"]), call.need_account(), note)
    return answer({"newStatus": event})


_ONE = "/api/{kind}/{repo}/discussions/{num}"
ROUTES = (
    route("GET", "/api/{kind}/{repo}/discussions", listed),
    route("POST", "/api/{kind}/{repo}/discussions", create),
    route("GET", _ONE, details),
    route("POST", _ONE + "/comment", comment),
    route("POST", _ONE + "/title", rename),
    route("POST", _ONE + "/status", status),
    route("POST", _ONE + "/merge", merge),
    route("POST", _ONE + "/comment/{comment}/edit", edit),
    route("POST", _ONE + "/comment/{comment}/hide", hide),
)
