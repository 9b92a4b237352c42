"""Accounts and repositories: who am I, create, delete, move, settings, information, lists."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, PlainTextResponse, Response

from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.cards import read_card
from hubedit_localhub.describing import EXPANDS, base_models, describe
from hubedit_localhub.history import History
from hubedit_localhub.names import KINDS
from hubedit_localhub.refusals import Refusal
from hubedit_localhub.store import VISIBILITIES, Repo, Store

PAGE = 1000


def whoami(call: Call) -> Response:
    """Say whose token this is."""
    if call.account is None or call.from_cookie:
        raise Refusal(401, "Invalid username or password.")
    account = call.account
    return answer(
        {
            "type": "user",
            "id": call.store.accounts.sign("user", account.user)[:24],
            "name": account.user,
            "fullname": account.user,
            "email": None,
            "isPro": False,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": account.token_name, "role": account.role},
            },
        }
    )


def _kind(body: dict[str, Any]) -> str:
    kind = f"{body.get('type') or 'model'}s"
    if kind not in KINDS:
        raise Refusal(400, f"this Hub keeps models and datasets, not {kind}")
    return kind


def _id(call: Call, body: dict[str, Any]) -> str:
    name, organization = body.get("name"), body.get("organization")
    if not isinstance(name, str) or not isinstance(organization, str | None):
        raise Refusal(400, "name and organization must be strings")
    repo_id = name if "/" in name else f"{organization or call.need_account().user}/{name}"
    return own_spelling(call, repo_id)


def own_spelling(call: Call, repo_id: str) -> str:
    """Return the id with the account's own name spelt as it is, whatever the case of letters."""
    namespace, _, name = repo_id.partition("/")
    user = call.need_account().user
    return f"{user}/{name}" if namespace.lower() == user.lower() else repo_id


def private_of(body: dict[str, Any]) -> bool | None:
    visibility = body.get("visibility")
    if visibility is None:
        private = body.get("private")
        return None if private is None else bool(private)
    if visibility not in VISIBILITIES:
        raise Refusal(400, f"Invalid visibility: one of {', '.join(VISIBILITIES)}")
    return bool(visibility == "private")


def create(call: Call) -> Response:
    """Create a repository in the namespace of the account."""
    body = call.json()
    kind, repo_id, account = _kind(body), _id(call, body), call.need_account()
    if account.user != repo_id.split("/")[0]:
        raise Refusal(
            403, f"You don't have the rights to create a {kind[:-1]} under that namespace"
        )
    if not account.writes:
        raise Refusal(403, "Forbidden: you must use a write token to create a repository.")
    prefix = "" if kind == "models" else f"{kind}/"
    url = {"url": f"{call.origin}/{prefix}{repo_id}", "name": repo_id}
    try:
        repo = call.store.create(kind, repo_id, account, private_of(body) or False)
    except Refusal as refusal:
        if refusal.status == 409:
            refusal.body.update(url)
        raise
    return answer({**url, "id": repo.settings()["uid"]})


def _named(call: Call, body: dict[str, Any], repo_id: str) -> Repo:
    kind = _kind(body)
    found = call.store.find(kind, repo_id) or call.store.same_but_for_case(kind, repo_id)
    repo = call.store.get(kind, found if isinstance(found, str) else repo_id, call.account)
    repo.need_writer(call.account, owner=True)
    return repo


def delete(call: Call) -> Response:
    """Delete a repository."""
    body = call.json()
    call.store.delete(_named(call, body, _id(call, body)))
    return answer({"success": True})


def move(call: Call) -> Response:
    """Rename a repository within the namespace of the account."""
    body = call.json()
    to_id = own_spelling(call, str(body.get("toRepo")))
    repo = _named(call, body, str(body.get("fromRepo")))
    if to_id.split("/")[0] != repo.namespace:
        raise Refusal(403, "You don't have the rights to move a repository to that namespace")
    moved = call.store.move(repo, to_id)
    return answer({"success": True, "url": call.url(moved)})


def info(call: Call) -> Response:
    """Describe a repository at a revision."""
    history = call.history()
    commit = history.resolve(call.params.get("rev", "main"))
    found = describe(call.store.objects, history.repo, history, commit, call.flag("blobs"))
    return answer(_expanded(call, found))


def _expanded(call: Call, found: dict[str, Any]) -> dict[str, Any]:
    """Return only what the query's `expand` names, if it names anything."""
    expand = call.query.getlist("expand") + call.query.getlist("expand[]")
    if not expand:
        return found
    known = EXPANDS[call["kind"]]
    if unknown := sorted(set(expand) - known):
        raise Refusal(400, f"Invalid expand {unknown[0]!r}: one of {', '.join(sorted(known))}")
    if "baseModels" in expand:
        found = found | {"baseModels": base_models(found["cardData"])}
    if "childrenModelCount" in expand:
        found = found | {"childrenModelCount": _children(call, found["id"])}
    return {key: value for key, value in found.items() if key in {"_id", "id", "modelId", *expand}}


def _children(call: Call, repo_id: str) -> dict[str, int]:
    bases = (
        base_models(item["cardData"]) or {} for item in listed(call.store, call, "models", False)
    )
    counts = Counter(
        base["relation"] for base in bases if {"id": repo_id} in base.get("models", ())
    )
    return dict(counts)


def listed(store: Store, call: Call, kind: str, asked: bool = True) -> list[dict[str, Any]]:
    """Return the repositories that the account may see and (if `asked`) the query asks for."""
    query = call.query if asked else QueryParams()
    wanted = set(query.getlist("filter"))
    author, search = query.get("author"), query.get("search", "").lower()
    pipeline, gated = query.get("pipeline_tag"), query.get("gated")
    found = []
    for repo in store.all(kind):
        if author not in (None, repo.namespace) or search not in repo.id.lower():
            continue
        if not repo.readable_by(call.account):
            continue
        history = History(repo)
        main = history.head("refs/heads/main")
        if main is None:
            continue
        item = describe(store.objects, repo, history, main)
        if gated is not None and (gated.lower() == "true") != bool(item["gated"]):
            continue
        if wanted <= set(item["tags"]) and pipeline in (None, item.get("pipeline_tag")):
            found.append(item)
    return found


_SORTS = {"lastModified": "lastModified", "createdAt": "createdAt"}


def list_repos(call: Call) -> Response:
    """List repositories, a page at a time, the newest first unless asked otherwise."""
    items = listed(call.store, call, call["kind"])
    sort = _SORTS.get(call.query.get("sort", ""), "createdAt")
    items.sort(key=lambda item: (item[sort], item["id"]), reverse=True)
    start = call.number("cursor", 0, 10**9)
    limit = call.number("limit", PAGE, PAGE) or PAGE
    dropped = set() if call.flag("full") else {"siblings", "cardData", "config", "usedStorage"}
    expand = "expand" in call.query
    if call.flag("cardData"):
        dropped -= {"cardData"}
    if call.flag("config"):
        dropped -= {"config"}
    page = [
        _expanded(call, item) if expand else {k: v for k, v in item.items() if k not in dropped}
        for item in items[start : start + limit]
    ]
    more = len(items) > start + limit
    return answer(page, headers={"Link": call.next_link(cursor=start + limit)} if more else None)


def auth_check(call: Call) -> Response:
    """Say whether the repository may be read."""
    call.repo().need_file_reader(call.account)
    return PlainTextResponse("OK")


def validate_yaml(call: Call) -> Response:
    """Check the header of a README."""
    content = call.json().get("content")
    if not isinstance(content, str):
        return JSONResponse(
            {"errors": [{"message": "content must be a string"}], "warnings": []}, 400
        )
    card = read_card(content)
    errors = [{"message": message} for message in card.errors]
    empty = "empty or missing yaml metadata in repo card"
    warnings = [{"message": empty}] if not card.data and not errors else []
    status = 400 if errors else 200
    if "text/plain" in call.headers.get("accept", ""):
        lines = [f"- Error: {error['message']}" for error in errors]
        lines += [f"- Warning: {warning['message']}" for warning in warnings]
        return PlainTextResponse("\n".join(lines), status)
    return JSONResponse({"errors": errors, "warnings": warnings}, status)


def user(call: Call) -> Response:
    """Describe a user."""
    if call["user"] not in call.store.accounts.users():
        raise Refusal(404, "This user does not exist")
    return answer({"user": call["user"], "fullname": call["user"], "type": "user", "avatarUrl": ""})


def own_repositories(call: Call) -> Response:
    """List the account's own repositories with what they take on disk."""
    user = call.need_account().user
    found = [
        (kind, item)
        for kind in KINDS
        for item in listed(call.store, call, kind, asked=False)
        if item["author"] == user
    ]
    total = sum(item["usedStorage"] for _, item in found) or 1
    return answer(
        [
            {
                "id": item["id"],
                "type": kind[:-1],
                "updatedAt": item["lastModified"],
                "visibility": VISIBILITIES[item["private"]],
                "storage": item["usedStorage"],
                "storagePercent": 100 * item["usedStorage"] / total,
            }
            for kind, item in found
        ]
    )


def ping(call: Call) -> Response:
    """Say which root this server keeps."""
    return answer({"hub": "hubedit-localhub", "root": call.store.name, "pid": os.getpid()})


ROUTES = (
    route("GET", "/api/whoami-v2", whoami),
    route("GET", "/api/ping", ping),
    route("GET", "/api/settings/repositories", own_repositories),
    route("POST", "/api/validate-yaml", validate_yaml),
    route("GET", "/api/users/{user}/overview", user),
    route("POST", "/api/repos/create", create),
    route("DELETE", "/api/repos/delete", delete),
    route("POST", "/api/repos/move", move),
    route("GET", "/api/{kind}", list_repos),
    route("GET", "/api/{kind}/{repo}", info),
    route("GET", "/api/{kind}/{repo}/revision/{rev}", info),
    route("GET", "/api/{kind}/{repo}/auth-check", auth_check),
)
