"""Whether a plugin can be imported: tried once in a process of its own, and remembered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hubedit.artifacts import cache_home
from hubedit.blame import place

GROUP = "hubedit"
"""The entry-point group of plugins."""
SECONDS = 30.0
"""How long an import may take; `HUBEDIT_PLUGIN_SECONDS` sets another limit."""
_FRAME = re.compile(r'File "(?P<file>[^<"][^"]*)", line (?P<line>\d+)')


class Outcome(NamedTuple):
    """What an import came to, in words; None where there is nothing to say.

    `problem` is why it failed, `noise` the first line it printed, `heavy` the first heavy library
    it imported; each with its place.
    """

    problem: str | None
    noise: str | None = None
    heavy: str | None = None


def entry_points() -> list[EntryPoint]:
    """Those of the installed plugins, but for what `HUBEDIT_DISABLE_PLUGINS` leaves out."""
    blocked = {name.strip() for name in os.environ.get("HUBEDIT_DISABLE_PLUGINS", "").split(",")}
    found = sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    return [point for point in found if point.name not in blocked]


def outcomes(points: Sequence[EntryPoint]) -> dict[str, Outcome]:
    """For each entry point by its value, what importing its module comes to.

    A module is imported in a process of its own with a time limit the first time it is met, and
    again when its files change; one that failed also when anything else was installed.
    """
    path = cache_home() / "plugins.json"
    known = read_cache(path)
    stamps = {point.value: stamp(point) for point in points}
    now = installed()
    found = {}
    for value, key in stamps.items():
        if key in known:
            when, *remembered = known[key]
            if when in (None, now):
                found[value] = Outcome(*remembered)
    new = [point for point in points if point.value not in found]
    if not new:
        return found
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for point, outcome in zip(new, pool.map(_try, new), strict=True):
            found[point.value] = outcome
            known[stamps[point.value]] = [now if outcome.problem else None, *outcome]
    write_cache(path, known)
    return found


def _try(point: EntryPoint) -> Outcome:
    """Import a module in a process of its own."""
    limit = float(os.environ.get("HUBEDIT_PLUGIN_SECONDS") or SECONDS)
    patience = max(limit - 3, limit / 2)
    command = [sys.executable, "-P", "-m", "hubedit.trying", point.module, str(patience)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        *printed, last = done.stdout.splitlines()
        said = json.loads(last)
    except subprocess.TimeoutExpired as late:
        return Outcome(f"importing it takes more than {limit:g} seconds{_waiting(late.stderr)}")
    except ValueError:
        return Outcome(f"importing it ended the process with status {done.returncode}")
    beside = [line for line in printed if line.strip()]
    noise = said["noise"] or (beside[0][:200] if beside else None)
    return Outcome(said["problem"], noise, said["heavy"])


def _waiting(stderr: bytes | str | None) -> str:
    """Where a process hung, from the traceback that it wrote before it was ended."""
    text = stderr.decode("utf-8", "replace") if isinstance(stderr, bytes) else stderr or ""
    frame = _FRAME.search(text)
    return f" ({place(frame['file'], int(frame['line']))})" if frame else ""


def stamp(point: EntryPoint) -> str:
    """What names the files that an entry point loads: they are tried again when it changes."""
    version = point.dist.version if point.dist else ""
    try:
        spec = find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    stamps: list[str] = []
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin)
        files = home.parent.rglob("*.py") if home.name == "__init__.py" else [home]
        for file in sorted(files):
            stat = file.stat()
            stamps.append(f"{file}:{stat.st_size}:{stat.st_mtime_ns}")
    return "|".join([point.value, version, sys.executable, *stamps])


def installed() -> str:
    """What changes when anything is installed or taken out: the times of the directories for it."""
    places = [Path(entry) for entry in sys.path if entry]
    homes = [path for path in places if next(path.glob("*.dist-info"), None) is not None]
    return "|".join(f"{path}:{path.stat().st_mtime_ns}" for path in homes)


def read_cache(path: Path) -> dict[str, list[Any]]:
    """What an earlier run wrote there; nothing, if it is not there or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write_cache(path: Path, known: dict[str, list[Any]], most: int = 200) -> None:
    """Keep the newest items for later runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(dict(list(known.items())[-most:])), encoding="utf-8")
    os.replace(draft, path)
