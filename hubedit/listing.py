"""What the installed plugins offer, kept from the last time they were loaded: imports none."""

from __future__ import annotations

import hashlib
from typing import Any

from hubedit import __version__
from hubedit.artifacts import cache_home
from hubedit.discovery import entry_points, installed, read_cache, stamp, write_cache


def listing() -> list[dict[str, Any]]:
    """The installed plugins, each as JSON: where from, its methods and hooks, what is wrong.

    They are loaded when the files of any have changed since they were last listed. Where one is
    not in order, also when anything else was installed.
    """
    path = cache_home() / "listing.json"
    points = entry_points()
    names = "\n".join([__version__, *(f"{point.name} {stamp(point)}" for point in points)])
    key = hashlib.sha256(names.encode()).hexdigest()
    known, now = read_cache(path), installed()
    if key in known and known[key][0] in (None, now):
        return [dict(item) for item in known[key][1]]
    from hubedit.plugins import load_plugins

    found = [info.as_json() for info in load_plugins().infos]
    known[key] = [now if any(item["errors"] for item in found) else None, found]
    write_cache(path, known, most=8)
    return found
