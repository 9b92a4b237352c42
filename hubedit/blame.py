"""Says in one line what went wrong in a stranger's code, and where."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from hubedit import __version__

_PLUGGY = "site-packages/pluggy/"


def brief(error: BaseException, owner: str | None = None) -> str:
    """An error in one line: its type, its text, where it was raised, and what may help.

    Args:
        error: what was raised.
        owner: a module; the place is the last line of its package that was run, if any was.
    """
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    found = _raised_at(error.__traceback__, (owner or "").partition(".")[0])
    frame = f" ({found})" if found else ""
    return f"{type(error).__name__}: {text[:400] or 'no message'}{frame}{_newer(error)}"


def place(file: str, line: int) -> str:
    """A line of a file, short: `plugin.py:3`, or `package/__init__.py:3`."""
    path = Path(file)
    name = f"{path.parent.name}/{path.name}" if path.name == "__init__.py" else path.name
    return f"{name}:{line}"


def place_of(thing: Any) -> str:
    """Where a class or function is written, or the name of its module if its source is not here."""
    try:
        file = inspect.getsourcefile(thing)
        return place(file or "", inspect.getsourcelines(thing)[1])
    except (OSError, TypeError):
        return str(getattr(thing, "__module__", thing))


def _raised_at(trace: TracebackType | None, package: str) -> str | None:
    """Where the innermost frame is, of a package or of all, unless nobody could look there."""
    frames = []
    while trace is not None:
        owner = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        frames.append((owner, trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    own = [frame for frame in frames if frame[0] == package] or frames
    if not own:
        return None
    _, file, line = own[-1]
    hidden = not Path(file).is_file() or _PLUGGY in Path(file).as_posix()
    return None if hidden else place(file, line)


def _newer(error: BaseException) -> str:
    """A hint, where the code asked hubedit for something that this version does not have."""
    owner = ""
    if isinstance(error, ImportError):
        owner = error.name or ""
    elif isinstance(error, AttributeError) and error.obj is not None:
        asked = error.obj
        owner = asked.__name__ if isinstance(asked, ModuleType) else type(asked).__module__
    if owner.partition(".")[0] != "hubedit":
        return ""
    return (
        f"; hubedit {__version__} has nothing of that name, so the plugin may be written for a "
        "newer one: pip install -U hubedit"
    )
