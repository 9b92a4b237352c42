"""Whether a plugin can be imported: tried once in a process of its own, and remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hubedit.artifacts import cache_home

SECONDS = 30.0
"""How long an import may take; `HUBEDIT_PLUGIN_SECONDS` sets another limit."""
_TRY = """
import contextlib, importlib, io, json, sys
said = io.StringIO()
try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        importlib.import_module(sys.argv[1])
    problem = None
except BaseException as error:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    problem = f"{type(error).__name__}: {'; '.join(lines)[:400] or 'no message'}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<"):
        import os
        place = os.path.basename(trace.tb_frame.f_code.co_filename)
        problem += f" ({place}:{trace.tb_lineno})"
noise = said.getvalue().strip().splitlines()
sys.__stdout__.write("\\n" + json.dumps({"problem": problem, "noise": noise[:1]}) + "\\n")
"""


class Outcome(NamedTuple):
    """What an import came to: why it failed (or None), and the first line it printed (or None)."""

    problem: str | None
    noise: str | None


def outcomes(points: Sequence[EntryPoint]) -> dict[str, Outcome]:
    """For each entry point by its value, what importing its module comes to.

    A module is imported in a process of its own with a time limit the first time it is met, and
    again when its files change.
    """
    path = cache_home() / "plugins.json"
    known = _read(path)
    stamps = {point.value: _stamp(point) for point in points}
    found = {value: Outcome(*known[stamp]) for value, stamp in stamps.items() if stamp in known}
    new = [point for point in points if point.value not in found]
    if not new:
        return found
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for point, outcome in zip(new, pool.map(_try, new), strict=True):
            found[point.value] = outcome
    known |= {stamps[point.value]: list(found[point.value]) for point in new}
    _write(path, known)
    return found


def _try(point: EntryPoint) -> Outcome:
    """Import a module in a process of its own."""
    limit = float(os.environ.get("HUBEDIT_PLUGIN_SECONDS") or SECONDS)
    command = [sys.executable, "-c", _TRY, point.module]
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
        said = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Outcome(f"importing it takes more than {limit:g} seconds", None)
    except (ValueError, IndexError):
        return Outcome(f"importing it ended the process with status {done.returncode}", None)
    return Outcome(said["problem"], said["noise"][0] if said["noise"] else None)


def _stamp(point: EntryPoint) -> str:
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


def _read(path: Path) -> dict[str, list[str | None]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, list[str | None]], most: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(dict(list(known.items())[-most:])), encoding="utf-8")
    os.replace(draft, path)
