"""Discussions and pull requests: one JSON file each, beside the git objects they speak of."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubedit_localhub.accounts import Account
from hubedit_localhub.history import History
from hubedit_localhub.locks import read_json, write_json
from hubedit_localhub.refusals import Refusal
from hubedit_localhub.rendering import markdown
from hubedit_localhub.store import Repo, now

Record = dict[str, Any]
STATUSES = ("draft", "open", "closed", "merged")
MAX_TEXT = 65536


def clean_title(title: object) -> str:
    """Return a title without outer blanks, else refuse with 400: 3 to 200 characters."""
    text = title.strip() if isinstance(title, str) else ""
    if not 3 <= len(text) <= 200:
        raise Refusal(400, "Invalid title: 3 to 200 characters")
    return " ".join(text.split())


def clean_text(text: object) -> str:
    """Return the text of a comment, else refuse with 400: at most 65536 characters."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise Refusal(400, f"Invalid text: at most {MAX_TEXT} characters")
    return text


def _event(kind: str, user: str, data: Record) -> Record:
    return {
        "id": secrets.token_hex(12),
        "type": kind,
        "createdAt": now(),
        "author": {"name": user, "type": "user"},
        "data": data,
    }


def _version(user: str, text: str) -> Record:
    return {"raw": text, "updatedAt": now(), "author": {"name": user}}


def comment_event(user: str, text: str) -> Record:
    """Return a new comment."""
    data = {"edited": False, "hidden": False, "latest": _version(user, text), "history": []}
    return _event("comment", user, data)


def commit_event(user: str, subject: str, oid: str) -> Record:
    """Return the record of a commit pushed to a pull request."""
    return _event("commit", user, {"subject": subject, "oid": oid})


def status_event(user: str, status: str) -> Record:
    """Return the record of a change of status."""
    return _event("status-change", user, {"status": status})


def _path(repo: Repo, num: int) -> Path:
    return repo.path / "discussions" / f"{num}.json"


def numbers(repo: Repo) -> list[int]:
    """Return the numbers in use, newest first."""
    names = (path.name for path in (repo.path / "discussions").glob("*.json"))
    return sorted(
        (int(n[:-5]) for n in names if re.fullmatch(r"[1-9]\d{0,8}\.json", n)), reverse=True
    )


def _settled(repo: Repo, record: Record) -> Record:
    """Return the record with what was promised for a commit, if its reference got there."""
    promised = record.pop("promised", None)
    if promised and History(repo).reached(promised["ref"], promised["commit"]):
        record |= promised["changes"]
        record["events"] += promised["events"]
    return record


def promise(
    repo: Repo, num: int, ref: str, commit: str, changes: Record, events: list[Record]
) -> None:
    """Store what becomes true of a discussion once `ref` has reached `commit`.

    A server may be killed between the move of a reference and the note of it; this note is made
    before the move, and whoever reads the record looks whether the move took place. The caller
    holds the repository's lock.
    """
    record = load(repo, num)
    promised = {"ref": ref, "commit": commit, "changes": changes, "events": events}
    save(repo, record | {"promised": promised})


def settle(repo: Repo, num: int) -> None:
    """Store a record as it reads now; the caller holds the repository's lock."""
    save(repo, load(repo, num))


def load(repo: Repo, num: int) -> Record:
    """Return the record, or refuse with 404."""
    try:
        found: Record = read_json(_path(repo, num))
    except FileNotFoundError:
        raise Refusal(404, f"Discussion #{num} not found") from None
    return _settled(repo, found)


def load_pull(repo: Repo, num: int) -> Record:
    """Return the record of a pull request, or refuse with 404 if it is not one."""
    found = load(repo, num)
    if not found["isPullRequest"]:
        raise Refusal(404, f"#{num} is not a pull request")
    return found


def save(repo: Repo, record: Record) -> None:
    """Store the record; the caller holds the repository's lock."""
    write_json(_path(repo, record["num"]), record)


def next_number(repo: Repo) -> int:
    """Return the next free number; the caller holds the repository's lock."""
    return (numbers(repo) or [0])[0] + 1


def open_record(
    repo: Repo,
    user: str,
    title: str,
    description: str,
    pull: bool,
    status: str,
    events: list[Record],
) -> Record:
    """Store a new discussion and return it; the caller holds the repository's lock."""
    record: Record = {
        "num": next_number(repo),
        "title": title,
        "status": status,
        "isPullRequest": pull,
        "author": user,
        "createdAt": now(),
        "events": [comment_event(user, description), *events],
    }
    save(repo, record)
    return record


def page(
    repo: Repo, kind: str, status: str, author: str | None, start: int, size: int
) -> tuple[list[Record], int]:
    """Return one page of the records that match, newest first, and how many match in all."""
    found = [
        record
        for num in numbers(repo)
        if (record := load(repo, num))
        and (
            kind not in ("pull_request", "discussion")
            or record["isPullRequest"] == (kind == "pull_request")
        )
        and (
            status not in ("open", "closed")
            or (record["status"] in ("open", "draft")) == (status == "open")
        )
        and author in (None, record["author"])
    ]
    return found[start : start + size], len(found)


def brief(repo: Repo, record: Record) -> Record:
    """Return what a list says about a discussion."""
    return {
        "num": record["num"],
        "title": record["title"],
        "status": record["status"],
        "createdAt": record["createdAt"],
        "isPullRequest": record["isPullRequest"],
        "author": {"name": record["author"], "type": "user"},
        "repo": {"name": repo.id, "type": repo.type},
        "numComments": sum(event["type"] == "comment" for event in record["events"]),
    }


def shown(event: Record) -> Record:
    """Return the event as the client gets it: comments rendered, hidden ones emptied."""
    if event["type"] != "comment":
        return event
    data = dict(event["data"])
    raw = "" if data["hidden"] else data["latest"]["raw"]
    data["latest"] = data["latest"] | {"raw": raw, "html": markdown(raw)}
    if data["hidden"]:
        data["history"] = []
    return event | {"data": data}


def events(record: Record) -> Iterator[Record]:
    """Yield the events as the client gets them."""
    yield from map(shown, record["events"])


def _need_say(repo: Repo, record: Record, account: Account) -> None:
    if account.user != record["author"] and not repo.writable_by(account):
        raise Refusal(
            403, "Forbidden: only its author or a writer of the repository may change this"
        )


def add_comment(repo: Repo, num: int, account: Account, text: object) -> Record:
    """Append a comment and return its event."""
    event = comment_event(account.user, clean_text(text))
    with repo.lock():
        record = load(repo, num)
        record["events"].append(event)
        save(repo, record)
    return shown(event)


def rename(repo: Repo, num: int, account: Account, title: object) -> Record:
    """Change the title and return the event."""
    text = clean_title(title)
    with repo.lock():
        record = load(repo, num)
        _need_say(repo, record, account)
        event = _event("title-change", account.user, {"from": record["title"], "to": text})
        record["title"] = text
        record["events"].append(event)
        save(repo, record)
    return event


def set_status(repo: Repo, num: int, account: Account, status: object, comment: object) -> Record:
    """Open or close, with a comment if one is given, and return the event."""
    if status not in ("open", "closed"):
        raise Refusal(400, "Invalid status: 'open' or 'closed'")
    with repo.lock():
        record = load(repo, num)
        _need_say(repo, record, account)
        if record["status"] == "merged":
            raise Refusal(400, f"#{num} is merged; its status cannot change")
        if record["status"] == status:
            raise Refusal(400, f"#{num} is already {status}")
        if comment:
            record["events"].append(comment_event(account.user, clean_text(comment)))
        event = status_event(account.user, str(status))
        record["status"] = status
        record["events"].append(event)
        save(repo, record)
    return event


def change_comment(
    repo: Repo, num: int, account: Account, comment_id: str, content: object | None
) -> Record:
    """Rewrite a comment, or hide it if `content` is None, and return its event."""
    with repo.lock():
        record = load(repo, num)
        found = [e for e in record["events"] if e["id"] == comment_id and e["type"] == "comment"]
        if not found:
            raise Refusal(404, "Comment not found")
        event, data = found[0], found[0]["data"]
        if content is None:
            if account.user != event["author"]["name"] and not repo.writable_by(account):
                raise Refusal(403, "Forbidden: only its author or a writer may hide a comment")
            data["hidden"] = True
        else:
            if account.user != event["author"]["name"] or data["hidden"]:
                raise Refusal(
                    403, "Forbidden: only its author may edit a comment, and not a hidden one"
                )
            data["history"].append(data["latest"])
            data["latest"] = _version(account.user, clean_text(content))
            data["edited"] = True
        save(repo, record)
    return shown(event)
