"""Accounts and repositories: who am I, create, delete, move, settings, information, lists."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import Any

import pygit2
from starlette.responses import JSONResponse, PlainTextResponse, Response

from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.cards import read_card, tags_of
from hubedit_localhub.history import Entry, History, iso
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
    return name if "/" in name else f"{organization or call.need_account().user}/{name}"


def _private(body: dict[str, Any]) -> bool | None:
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
        repo = call.store.create(kind, repo_id, account, _private(body) or False)
    except Refusal as refusal:
        if refusal.status == 409:
            refusal.body.update(url)
        raise
    return answer({**url, "id": repo.settings()["uid"]})


def _named(call: Call, body: dict[str, Any], repo_id: str) -> Repo:
    repo = call.store.get(_kind(body), repo_id, call.account)
    repo.need_writer(call.account)
    return repo


def delete(call: Call) -> Response:
    """Delete a repository."""
    body = call.json()
    call.store.delete(_named(call, body, _id(call, body)))
    return answer({"success": True})


def move(call: Call) -> Response:
    """Rename a repository within the namespace of the account."""
    body = call.json()
    to_id = str(body.get("toRepo"))
    repo = _named(call, body, str(body.get("fromRepo")))
    if to_id.split("/")[0] != repo.namespace:
        raise Refusal(403, "You don't have the rights to move a repository to that namespace")
    moved = call.store.move(repo, to_id)
    return answer({"success": True, "url": call.url(moved)})


def settings(call: Call) -> Response:
    """Change who may see a repository."""
    repo, body = call.writable(), call.json()
    changes: dict[str, Any] = {}
    private = _private(body)
    if private is not None:
        changes["private"] = private
    if body.get("gated") not in (None, False, "false"):
        raise Refusal(400, "this Hub has no gated repositories; make it private")
    if changes:
        repo.change_settings(**changes)
    return answer({"private": repo.settings()["private"], "gated": False})


def _sibling(entry: Entry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    found: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.pointer:
        found["lfs"] = {
            "size": entry.size,
            "sha256": entry.pointer.oid,
            "pointerSize": entry.pointer_size,
        }
    return found


def _config(history: History, commit: pygit2.Commit) -> dict[str, Any]:
    try:
        loaded = json.loads(history.text(commit, "config.json") or "{}")
    except (ValueError, RecursionError):
        return {}
    kept = ("architectures", "model_type", "quantization_config")
    return {key: loaded[key] for key in kept if key in loaded} if isinstance(loaded, dict) else {}


@lru_cache(maxsize=512)
def _described(repo: Repo, uid: str, sha: str) -> dict[str, Any]:
    """Return what a commit alone says; `uid` keeps a namesake created later apart."""
    history = History(repo)
    commit = history.resolve(sha)
    entries = [entry for entry in history.walk(commit.tree, "", True) if not entry.directory]
    readme = history.text(commit, "README.md")
    data = read_card(readme).data if readme else {}
    config = _config(history, commit)
    model_type = config.get("model_type") if isinstance(config.get("model_type"), str) else None
    return {
        "entries": entries,
        "lastModified": iso(commit.commit_time),
        "cardData": data,
        "config": config,
        "tags": tags_of(data, [entry.path for entry in entries], model_type),
    }


def describe(
    repo: Repo, history: History, commit: pygit2.Commit, blobs: bool = False
) -> dict[str, Any]:
    """Return what the Hub says about a repository at a commit."""
    kept = repo.settings()
    found = _described(repo, kept["uid"], str(commit.id))
    data, entries = found["cardData"], found["entries"]
    result: dict[str, Any] = {
        "_id": kept["uid"],
        "id": repo.id,
        "author": repo.namespace,
        "sha": str(commit.id),
        "lastModified": found["lastModified"],
        "createdAt": kept["createdAt"],
        "private": kept["private"],
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": found["tags"],
        "cardData": data,
        "siblings": [_sibling(entry, blobs) for entry in entries],
        "usedStorage": sum(entry.size for entry in entries),
    }
    if repo.kind == "models":
        result |= {"modelId": repo.id, "config": found["config"]}
        for key in ("pipeline_tag", "library_name"):
            if isinstance(data.get(key), str):
                result[key] = data[key]
        if isinstance(data.get("model-index"), list):
            result["model-index"] = data["model-index"]
    return result


def info(call: Call) -> Response:
    """Describe a repository at a revision."""
    history = call.history()
    commit = history.resolve(call.params.get("rev", "main"))
    found = describe(history.repo, history, commit, call.flag("blobs"))
    expand = call.query.getlist("expand") + call.query.getlist("expand[]")
    if expand:
        found = {
            key: value for key, value in found.items() if key in {"_id", "id", "modelId", *expand}
        }
    return answer(found)


def listed(store: Store, call: Call, kind: str) -> list[dict[str, Any]]:
    """Return the repositories that the account may see and the query asks for."""
    wanted = set(call.query.getlist("filter"))
    author, search = call.query.get("author"), call.query.get("search", "").lower()
    pipeline = call.query.get("pipeline_tag")
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
        item = describe(repo, history, main)
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
    expand = call.query.getlist("expand")
    dropped = (
        set() if call.flag("full") or expand else {"siblings", "cardData", "config", "usedStorage"}
    )
    if call.flag("cardData"):
        dropped -= {"cardData"}
    if call.flag("config"):
        dropped -= {"config"}
    page = [
        {
            k: v
            for k, v in item.items()
            if k not in dropped and (not expand or k in {"_id", "id", *expand})
        }
        for item in items[start : start + limit]
    ]
    more = len(items) > start + limit
    return answer(page, headers={"Link": call.next_link(cursor=start + limit)} if more else None)


def auth_check(call: Call) -> Response:
    """Say whether the repository may be read."""
    call.repo()
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
    return JSONResponse({"errors": errors, "warnings": warnings}, 400 if errors else 200)


def user(call: Call) -> Response:
    """Describe a user."""
    if call["user"] not in call.store.accounts.users():
        raise Refusal(404, "This user does not exist")
    return answer({"user": call["user"], "fullname": call["user"], "type": "user", "avatarUrl": ""})


def ping(call: Call) -> Response:
    """Say which root this server keeps."""
    return answer({"hub": "hubedit-localhub", "root": call.store.name, "pid": os.getpid()})


ROUTES = (
    route("GET", "/api/whoami-v2", whoami),
    route("GET", "/api/ping", ping),
    route("POST", "/api/validate-yaml", validate_yaml),
    route("GET", "/api/users/{user}/overview", user),
    route("POST", "/api/repos/create", create),
    route("DELETE", "/api/repos/delete", delete),
    route("POST", "/api/repos/move", move),
    route("PUT", "/api/{kind}/{repo}/settings", settings),
    route("GET", "/api/{kind}", list_repos),
    route("GET", "/api/{kind}/{repo}", info),
    route("GET", "/api/{kind}/{repo}/revision/{rev}", info),
    route("GET", "/api/{kind}/{repo}/auth-check", auth_check),
)
