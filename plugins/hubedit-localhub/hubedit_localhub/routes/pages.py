"""Pages for people: repositories, a card, files, commits, pull requests with their diffs."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import pygit2
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hubedit_localhub import discussions, pulls
from hubedit_localhub.app import route
from hubedit_localhub.calls import Call
from hubedit_localhub.cards import read_card
from hubedit_localhub.history import Entry, History, iso, title
from hubedit_localhub.names import KINDS, check_path
from hubedit_localhub.refusals import Refusal, no_entry
from hubedit_localhub.rendering import diff_lines, markdown
from hubedit_localhub.routes.repos import listed
from hubedit_localhub.sessions import LIFETIME_SECONDS, session_name, session_value
from hubedit_localhub.tensors import read_header

MAX_TENSORS = 5000
MAX_READ = 16 << 20
"""Bytes of a file that a report reads, at most; without a delta it leaves the spectrum out."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def size_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


@lru_cache(maxsize=1)
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("hubedit_localhub"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["size_text"] = size_text
    found.filters["path"] = lambda text: quote(text, safe="/")
    found.filters["segment"] = lambda text: quote(text, safe="")
    return found


def _page(call: Call, template: str, **values: Any) -> Response:
    if "token" in call.query:
        return _enter(call)
    user = call.account.user if call.account else None
    text = _templates().get_template(template).render(user=user, host=call.origin, **values)
    return HTMLResponse(text, headers=_HEADERS)


def _enter(call: Call) -> Response:
    """Turn a token in the address into a cookie, and leave the address without it."""
    answer = RedirectResponse(
        call.path, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )
    account = call.store.accounts.by_token(call.query["token"])
    if account:
        answer.set_cookie(
            session_name(call.store),
            session_value(call.store, account.user),
            max_age=LIFETIME_SECONDS,
            httponly=True,
            samesite="strict",
        )
    return answer


def _entering(call: Call) -> bool:
    return "token" in call.query


def style(call: Call) -> Response:
    """Send the style sheet."""
    text = (files("hubedit_localhub") / "templates" / "style.css").read_text()
    return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def index(call: Call) -> Response:
    """List the repositories the visitor may see."""
    kinds = {kind: listed(call.store, call, kind) for kind in KINDS}
    return _page(call, "index.html", kinds=kinds)


def _commits(history: History, commit: pygit2.Commit, limit: int) -> list[dict[str, str]]:
    page, _ = history.log(commit, 0, limit)
    return [
        {
            "id": str(found.id),
            "title": title(found),
            "author": found.author.name,
            "date": iso(found.commit_time)[:10],
        }
        for found in page
    ]


def _stack(history: History, commit: pygit2.Commit) -> list[dict[str, str]]:
    """Return the edits that `hubedit.json` lists, as far as it is understood."""
    try:
        loaded = json.loads(history.text(commit, "hubedit.json") or "{}")
        shown = ("name", "method", "summary", "result")
        return [
            {key: str(edit.get(key, "")) for key in shown}
            for edit in loaded.get("edits", [])
            if isinstance(edit, dict)
        ]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []


def _timeline(
    history: History, stack: list[dict[str, str]], tags: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Return the edits, the newest first, each with the version that brought it and its day."""
    brought: dict[str, tuple[str, str]] = {}
    versions = [tag for tag in tags if tag["name"][:1] == "v" and tag["name"][1:].isdecimal()]
    for tag in sorted(versions, key=lambda tag: int(tag["name"][1:])):
        for edit in _stack(history, history.resolve(tag["targetCommit"])):
            brought.setdefault(edit["name"], (tag["name"], tag["targetCommit"]))
    found = []
    for edit in stack:
        version, oid = brought.get(edit["name"], ("", ""))
        day = iso(history.resolve(oid).commit_time)[:10] if oid else ""
        found.append(edit | {"version": version, "commit": oid, "day": day})
    return found[::-1]


def _tensors(call: Call, entry: Entry) -> list[dict[str, Any]]:
    """Return the tensors of a safetensors file as its header lists them."""
    if entry.pointer is None or not entry.path.endswith(".safetensors"):
        return []
    header = read_header(call.store.objects.path(entry.pointer.oid)) or {}
    rows = []
    for name, tensor in list(header.items())[:MAX_TENSORS]:
        if name != "__metadata__" and isinstance(tensor, dict):
            shape = tensor.get("shape")
            sizes = " × ".join(map(str, shape)) if isinstance(shape, list) else ""
            rows.append({"name": name, "dtype": str(tensor.get("dtype")), "shape": sizes})
    return rows


def repository(call: Call) -> Response:
    """Show a repository at a revision: card, files, commits, tags, pull requests."""
    if _entering(call):
        return _enter(call)
    history = call.history()
    repo = history.repo
    revision = call.params.get("rev", "main")
    commit = history.resolve(revision)
    readme = history.text(commit, "README.md")
    card = read_card(readme) if readme else None
    entries = [entry for entry in history.walk(commit.tree, "", True) if not entry.directory]
    records, _ = discussions.page(repo, "all", "all", None, 0, 20)
    tags = history.refs("refs/tags/")
    return _page(
        call,
        "repository.html",
        repo=repo,
        private=repo.settings()["private"],
        revision=revision,
        commit=commit,
        card=card,
        card_html=markdown(card.body) if card else "",
        files=entries[:1000],
        file_count=len(entries),
        commits=_commits(history, commit, 20),
        branches=history.refs("refs/heads/"),
        tags=tags,
        discussions=[discussions.brief(repo, record) for record in records],
        stack=_timeline(history, _stack(history, commit), tags),
    )


def discussion(call: Call) -> Response:
    """Show a discussion or pull request with its events and its diff."""
    if _entering(call):
        return _enter(call)
    repo = call.repo()
    record = discussions.load(repo, int(call["num"]))
    lines, clashes, edited = [], [], False
    if record["isPullRequest"] and repo.opens_to(call.account):
        history = History(repo)
        proposed = history.resolve(f"refs/pr/{record['num']}")
        edited = bool(_stack(history, proposed))
        lines = diff_lines(pulls.diff_of(history, record))
        clashes = pulls.conflicts(history, record)
    return _page(
        call,
        "discussion.html",
        repo=repo,
        record=record,
        events=list(discussions.events(record)),
        lines=lines,
        clashes=clashes,
        edited=edited,
    )


def report(call: Call) -> Response:
    """Show what the edit of a pull request did, as its own records say."""
    if _entering(call):
        return _enter(call)
    from hubedit.report import POLICY, of_files, render

    history = call.history()
    history.repo.need_file_reader(call.account)
    discussions.load(history.repo, int(call["num"]))
    revision = f"refs/pr/{int(call['num'])}"
    commit = history.resolve(revision)

    def read(path: str) -> bytes | None:
        entry = history.find(commit, path)
        if entry is None or entry.directory or entry.size > MAX_READ:
            return None
        if entry.pointer is None:
            return history.blob(entry.oid)
        stored = call.store.objects.path(entry.pointer.oid)
        return stored.read_bytes() if entry.pointer.size <= MAX_READ else None

    found = of_files(read, repo=history.repo.id, revision=revision)
    if found is None:
        raise Refusal(404, "this pull request holds no edit that can be shown")
    policy = {"Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'"}
    return HTMLResponse(render(found), headers=_HEADERS | policy)


def commit_page(call: Call) -> Response:
    """Show what one commit changed."""
    if _entering(call):
        return _enter(call)
    history = call.history()
    history.repo.need_file_reader(call.account)
    commit = history.resolve(call["rev"])
    before = commit.parents[0].tree if commit.parent_ids else None
    lines = diff_lines(pulls.tree_diff(history, before, commit.tree))
    return _page(
        call,
        "commit.html",
        repo=history.repo,
        commit=commit,
        date=iso(commit.commit_time),
        lines=lines,
    )


def blob(call: Call) -> Response:
    """Show a text file, or where to download another."""
    if _entering(call):
        return _enter(call)
    history = call.history()
    history.repo.need_file_reader(call.account)
    path = check_path(call["rest"], 400)
    commit = history.resolve(call["rev"])
    entry = history.file(commit, path)
    text = history.text(commit, path)
    is_card = text is not None and path.lower().endswith(".md")
    return _page(
        call,
        "blob.html",
        repo=history.repo,
        revision=call["rev"],
        entry=entry,
        text=text,
        tensors=_tensors(call, entry),
        html=markdown(read_card(text).body) if is_card and text is not None else "",
    )


def directory(call: Call) -> Response:
    """Lead from a directory's address to its repository's page."""
    history = call.history()
    repo = history.repo
    if history.find(history.resolve(call["rev"]), call["rest"].strip("/")) is None:
        raise no_entry()
    return RedirectResponse(f"/{repo.prefix}{repo.id}/tree/{quote(call['rev'], safe='')}", 302)


def error_page(refusal: Refusal) -> Response:
    """Say to a person why there is nothing to see."""
    hidden = refusal.code == "RepoNotFound"
    text = _templates().get_template("error.html").render(user=None, refusal=refusal, hidden=hidden)
    return HTMLResponse(text, refusal.status, _HEADERS)


def favicon(call: Call) -> Response:
    """There is none."""
    raise Refusal(404, "no icon")


ROUTES = (
    route("GET", "/", index),
    route("GET", "/static/style.css", style),
    route("GET", "/favicon.ico", favicon),
    route("GET", "/{pre}{repo}", repository),
    route("GET", "/{pre}{repo}/tree/{rev}", repository),
    route("GET", "/{pre}{repo}/tree/{rev}/{rest}", directory),
    route("GET", "/{pre}{repo}/blob/{rev}/{rest}", blob),
    route("GET", "/{pre}{repo}/discussions/{num}", discussion),
    route("GET", "/{pre}{repo}/discussions/{num}/report", report),
    route("GET", "/{pre}{repo}/commit/{rev}", commit_page),
)
