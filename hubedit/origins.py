"""Where installed code comes from: its distribution's origin, and the hash of its files."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit


def files_sha256(module: ModuleType | None) -> str:
    """SHA-256 (hex) over a module's files: `path NUL sha256 LF` for each, sorted by path.

    Of a package these are all files below it, but for compiled and hidden ones.
    """
    if module is None or module.__file__ is None:
        return hashlib.sha256(b"").hexdigest()
    home = Path(module.__file__)
    digest = hashlib.sha256()
    for file in sorted(_package(home.parent)) if home.name == "__init__.py" else [home]:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(home.parent).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _package(home: Path) -> list[Path]:
    def counts(path: Path) -> bool:
        parts = path.relative_to(home).parts
        return not any(part.startswith(".") or part == "__pycache__" for part in parts)

    return [path for path in home.rglob("*") if path.is_file() and counts(path)]


def origin_of(distribution: metadata.Distribution | None) -> str:
    """Where a distribution was installed from (PEP 610), without any path of this machine.

    `index` is a package index, and `git+URL@COMMIT`, a URL, `local file NAME` or `local directory`
    what pip was given instead; empty if the distribution is not known.
    """
    if distribution is None:
        return ""
    text = distribution.read_text("direct_url.json")
    if text is None:
        return "index"
    try:
        said = json.loads(text)
        url, source = str(said["url"]), said.get("vcs_info")
        address = urlsplit(url)
    except (ValueError, KeyError, TypeError):
        return ""
    if source:
        return f"{source['vcs']}+{_public(url)}@{source['commit_id']}"
    if "dir_info" in said:
        return "local directory" + (", editable" if said["dir_info"].get("editable") else "")
    if address.scheme == "file":
        return f"local file {address.path.rpartition('/')[2]}"
    return _public(url)


def _public(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host, query="").geturl()
