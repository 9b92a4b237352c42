"""What may be called what: repositories, users, paths inside a repository, branches and tags."""

from __future__ import annotations

import re

from hubedit_localhub.refusals import Refusal

KINDS = ("models", "datasets")
RESERVED = frozenset(
    {"api", "models", "datasets", "spaces", "kernels", "static", "lfs", "settings"}
)
MAX_PATH_BYTES = 1024
MAX_SEGMENT_BYTES = 255

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_REF = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]+")


def is_repo_id(text: str) -> bool:
    """Say whether `text` is a well-formed `namespace/name`."""
    parts = text.split("/")
    return (
        len(parts) == 2
        and all(_SEGMENT.fullmatch(part) for part in parts)
        and "--" not in text
        and ".." not in text
        and parts[0].lower() not in RESERVED
        and not parts[1].lower().endswith((".git", ".ipynb", ".lock"))
    )


def check_repo_id(text: str) -> str:
    """Return `text` if a repository may have that id, else refuse with 400."""
    if not is_repo_id(text):
        raise Refusal(
            400,
            f"Invalid repository id {text!r}: two names joined by one '/', of letters, digits, "
            "'-', '_' and '.', none of them reserved",
        )
    return text


def check_user(name: str) -> str:
    """Return `name` if a user may be called that, else refuse with 400."""
    if not is_repo_id(f"{name}/x"):
        raise Refusal(400, f"Invalid user name {name!r}: letters, digits, '-', '_' and '.'")
    return name


def _is_git_directory(segment: str) -> bool:
    # Windows and macOS open `.git` under these names too.
    bare = segment.lower().rstrip(". ").split(":")[0].replace("\u200c", "").replace("\u200d", "")
    return bare == ".git" or re.fullmatch(r"git~\d+", bare) is not None


def check_path(path: str, status: int = 422) -> str:
    """Return `path` if a file may lie there, else refuse with `status`."""
    segments = path.split("/")
    if (
        not path
        or _UNPRINTABLE.search(path)
        or "\\" in path
        or any(segment in {"", ".", ".."} or _is_git_directory(segment) for segment in segments)
    ):
        raise Refusal(
            status, f"Invalid path {path!r}: relative, with '/', and without '..' or '.git'"
        )
    try:
        encoded = [segment.encode() for segment in segments]
    except UnicodeEncodeError:
        raise Refusal(status, "Invalid path: not Unicode text") from None
    if (
        sum(map(len, encoded)) + len(encoded) > MAX_PATH_BYTES
        or max(map(len, encoded)) > MAX_SEGMENT_BYTES
    ):
        raise Refusal(status, "Invalid path: too long")
    return path


def check_ref_name(name: str) -> str:
    """Return `name` if git allows it for a branch or tag, else refuse with 400."""
    bad = (
        not _REF.fullmatch(name)
        or len(name.encode(errors="replace")) > MAX_SEGMENT_BYTES
        or name.startswith(("/", "-", "refs/"))
        or name.endswith(("/", "."))
        or any(part in name for part in ("..", "//", "@{"))
        or any(not p or p.startswith(".") or p.endswith(".lock") for p in name.split("/"))
        or name in {"@", "HEAD"}
        or re.fullmatch(r"[0-9a-f]{40}", name) is not None
    )
    if bad:
        raise Refusal(400, f"Invalid reference name: {name}")
    return name
