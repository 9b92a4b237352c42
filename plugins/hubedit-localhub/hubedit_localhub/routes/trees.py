"""Trees, single paths, commits, branches and tags."""

from __future__ import annotations

from typing import Any

import pygit2
from starlette.responses import Response

from hubedit_localhub.app import route
from hubedit_localhub.calls import Call, answer
from hubedit_localhub.durable import sync_objects
from hubedit_localhub.history import Entry, History, iso, title
from hubedit_localhub.names import check_path, check_ref_name
from hubedit_localhub.refs import clear_stale_locks, set_ref
from hubedit_localhub.refusals import Refusal, no_entry, no_revision
from hubedit_localhub.store import Repo, signature

PAGE, EXPANDED_PAGE = 1000, 50


def _item(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "directory" if entry.directory else "file",
        "oid": entry.oid,
        "size": entry.size,
        "path": entry.path,
    }
    if entry.pointer:
        found["lfs"] = {
            "oid": entry.pointer.oid,
            "size": entry.size,
            "pointerSize": entry.pointer_size,
        }
    return found


def _expanded(history: History, commit: pygit2.Commit, items: list[dict[str, Any]]) -> None:
    last = history.last_commits(commit, [item["path"] for item in items])
    for item in items:
        found = last.get(item["path"], commit)
        item["lastCommit"] = {
            "id": str(found.id),
            "title": title(found),
            "date": iso(found.commit_time),
        }


def tree(call: Call) -> Response:
    """List a directory, a page at a time."""
    history = call.history()
    commit = history.resolve(call["rev"])
    under = call.params.get("rest", "").strip("/")
    if under:
        check_path(under, 400)
    try:
        directory = commit.tree[under] if under else commit.tree
    except KeyError:
        raise no_entry(commit=str(commit.id)) from None
    if not isinstance(directory, pygit2.Tree):
        raise no_entry(commit=str(commit.id))
    expand = call.flag("expand")
    most = EXPANDED_PAGE if expand else PAGE
    start, limit = call.number("cursor", 0, 10**9), call.number("limit", most, most) or most
    items: list[dict[str, Any]] = []
    more = False
    for number, entry in enumerate(history.walk(directory, under, call.flag("recursive"))):
        if number >= start + limit:
            more = True
            break
        if number >= start:
            items.append(_item(entry))
    if expand:
        _expanded(history, commit, items)
    return answer(items, headers={"Link": call.next_link(cursor=start + limit)} if more else None)


def paths_info(call: Call) -> Response:
    """Describe some paths; those that do not exist are left out."""
    history = call.history()
    commit = history.resolve(call["rev"])
    fields = call.fields()
    paths = [path.strip("/") for path in fields.get("paths", [])]
    entries = [
        history.find(commit, path) for path in dict.fromkeys(paths) if path and "\0" not in path
    ]
    items = [_item(entry) for entry in entries if entry is not None]
    if fields.get("expand", ["false"])[-1].lower() == "true":
        _expanded(history, commit, items)
    return answer(items)


def commits(call: Call) -> Response:
    """List the commits of a revision, newest first."""
    history = call.history()
    start, limit = call.number("cursor", 0, 10**9), call.number("limit", 50, 1000) or 50
    page, more = history.log(history.resolve(call["rev"]), start, limit)
    formatted = "formatted" in call.query.getlist("expand[]") + call.query.getlist("expand")
    items = []
    for commit in page:
        subject, _, message = commit.message.partition("\n")
        item: dict[str, Any] = {
            "id": str(commit.id),
            "title": subject.strip(),
            "message": message.strip(),
            "authors": [{"user": commit.author.name}],
            "date": iso(commit.commit_time),
        }
        if formatted:
            item["formatted"] = {"title": item["title"], "message": item["message"]}
        items.append(item)
    return answer(items, headers={"Link": call.next_link(cursor=start + limit)} if more else None)


def refs(call: Call) -> Response:
    """List branches and tags, and pull requests if asked for."""
    history = call.history()
    found: dict[str, Any] = {
        "branches": history.refs("refs/heads/"),
        "converts": [],
        "tags": history.refs("refs/tags/"),
    }
    if call.flag("include_prs"):
        found["pullRequests"] = [ref | {"name": ref["ref"]} for ref in history.refs("refs/pr/")]
    return answer(found)


def _need_free(git: pygit2.Repository, ref: str) -> None:
    for taken in git.references:
        if taken == ref:
            raise Refusal(409, f"Reference {ref} already exists")
        # References are files: `a` and `a/b` cannot both be.
        if taken.startswith(f"{ref}/") or ref.startswith(f"{taken}/"):
            raise Refusal(409, f"Reference {taken} already exists, so {ref} cannot")


def _create(repo: Repo, ref: str, target: pygit2.Oid) -> None:
    with repo.lock():
        git = repo.git()
        _need_free(git, ref)
        set_ref(git, ref, None, str(target))


def create_branch(call: Call) -> Response:
    """Create a branch."""
    repo = call.writable()
    ref = f"refs/heads/{check_ref_name(call['rev'])}"
    body = call.json()
    if body.get("overwrite"):
        raise Refusal(400, "a branch is never overwritten; delete it first")
    commit = History(repo).resolve(str(body.get("startingPoint") or "main"))
    _create(repo, ref, commit.id)
    return answer({"success": True})


def _delete(repo: Repo, ref: str, name: str) -> None:
    with repo.lock():
        git = repo.git()
        if ref not in git.references:
            raise no_revision(name)
        clear_stale_locks(repo.path, ref)
        git.references.delete(ref)


def delete_branch(call: Call) -> Response:
    """Delete a branch other than main."""
    repo, name = call.writable(), call["rev"].removeprefix("refs/heads/")
    if name == "main":
        raise Refusal(403, "Cannot delete refs/heads/main")
    _delete(repo, f"refs/heads/{check_ref_name(name)}", name)
    return answer({"success": True})


def create_tag(call: Call) -> Response:
    """Create a tag on a revision, annotated if a message came along."""
    repo, body = call.writable(), call.json()
    name = check_ref_name(str(body.get("tag") or ""))
    ref = f"refs/tags/{name}"
    target = History(repo).resolve(call["rev"]).id
    message = body.get("message")
    if not message:
        _create(repo, ref, target)
        return answer({"success": True})
    author = signature(call.need_account().user)
    with repo.lock():
        git = repo.git()
        _need_free(git, ref)
        clear_stale_locks(repo.path, ref)
        made = git.create_tag(name, target, pygit2.enums.ObjectType.COMMIT, author, str(message))
        sync_objects(repo.path, [str(made)])
    return answer({"success": True})


def delete_tag(call: Call) -> Response:
    """Delete a tag."""
    repo, name = call.writable(), call["rev"].removeprefix("refs/tags/")
    _delete(repo, f"refs/tags/{check_ref_name(name)}", name)
    return answer({"success": True})


def squash(call: Call) -> Response:
    """Replace the history of a branch by one commit; the old commits can still be read by hash."""
    repo = call.writable()
    ref = call["rev"] if call["rev"].startswith("refs/") else f"refs/heads/{call['rev']}"
    if not ref.startswith(("refs/heads/", "refs/pr/")):
        raise Refusal(400, "only branches and pull requests can be squashed")
    message = str(call.json().get("message") or "Super-squash branch")
    author = signature(call.need_account().user)
    with repo.lock():
        history = History(repo)
        head = history.head(ref)
        if head is None:
            raise (
                Refusal(400, f"{call['rev']} is not a branch")
                if history.head(f"refs/tags/{call['rev']}")
                else no_revision(call["rev"])
            )
        made = history.git.create_commit(None, author, author, message, head.tree.id, [])
        sync_objects(repo.path, [str(made)])
        set_ref(history.git, ref, str(head.id), str(made))
    return answer({"success": True})


ROUTES = (
    route("GET", "/api/{kind}/{repo}/tree/{rev}(?:/{rest})?", tree),
    route("POST", "/api/{kind}/{repo}/paths-info/{rev}", paths_info),
    route("GET", "/api/{kind}/{repo}/commits/{rev}", commits),
    route("GET", "/api/{kind}/{repo}/refs", refs),
    route("POST", "/api/{kind}/{repo}/branch/{rev}", create_branch),
    route("DELETE", "/api/{kind}/{repo}/branch/{rev}", delete_branch),
    route("POST", "/api/{kind}/{repo}/tag/{rev}", create_tag),
    route("DELETE", "/api/{kind}/{repo}/tag/{rev}", delete_tag),
    route("POST", "/api/{kind}/{repo}/super-squash/{rev}", squash),
)
