"""The one exception that becomes an HTTP error, and the refusals that recur."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOST_RACE = "The branch was updated since you opened this page. Please refresh and try again."
NO_ENTRY = "A file with this name doesn't exist"


class Refusal(Exception):
    """A request is refused.

    Args:
        status: the HTTP status.
        message: one sentence for the person who asked.
        code: the `X-Error-Code` from which the client picks its exception class.
        headers: more headers for the answer.
        body: more fields for the JSON answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers, self.body = dict(headers or {}), dict(body or {})


def no_repo(known_user: bool) -> Refusal:
    """Return what everyone is told about a repository that is missing or may not be seen."""
    if known_user:
        return Refusal(404, "Repository not found", "RepoNotFound")
    return Refusal(401, "Invalid username or password.", "RepoNotFound")


def no_revision(revision: str) -> Refusal:
    """Return the refusal for a branch, tag or commit that is not there."""
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(message: str = "Entry not found", commit: str | None = None) -> Refusal:
    """Return the refusal for a missing path; `commit` lets the client cache the absence."""
    headers = {"X-Repo-Commit": commit} if commit else None
    return Refusal(404, message, "EntryNotFound", headers)
