"""Imports one module in a process of its own and prints, as JSON, what came of it."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import json
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from hubedit.blame import brief, place

HEAVY = ("torch", "transformers")
"""What takes seconds to import, so that a plugin imports it when it is used."""


def main(module: str, seconds: float) -> dict[str, str | None]:
    """Import a module; what failed, the first line it printed, the first heavy import it made.

    After `seconds` of waiting, where it waits is written to stderr.
    """
    owner = module.partition(".")[0]
    said, watch = _Said(owner), _Watch(owner)
    sys.meta_path.insert(0, watch)
    faulthandler.dump_traceback_later(seconds)
    problem = None
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            importlib.import_module(module)
    except BaseException as error:  # a stranger's code may raise anything, SystemExit too
        problem = brief(error, owner)
    faulthandler.cancel_dump_traceback_later()
    return {"problem": problem, "noise": said.first, "heavy": watch.first}


class _Said(io.StringIO):
    """A stream that keeps the first line written to it, and which line of the plugin wrote it."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.first: str | None = None
        self._owner = owner

    def write(self, text: str) -> int:
        """Keep the first words."""
        if self.first is None and text.strip():
            self.first = f"{text.strip().splitlines()[0][:200]} ({_line_of(self._owner)})"
        return super().write(text)


class _Watch(MetaPathFinder):
    """Finds nothing, and notes the first import of something heavy."""

    def __init__(self, owner: str) -> None:
        self.first: str | None = None
        self._owner = owner

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave every module to the finders that follow."""
        if self.first is None and fullname in HEAVY:
            self.first = f"{fullname} ({_line_of(self._owner)})"
        return None


def _line_of(owner: str) -> str:
    """The line of the package `owner` that is being run, innermost first."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] == owner:
            return place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return owner


if __name__ == "__main__":
    outcome = main(sys.argv[1], float(sys.argv[2]))
    assert sys.__stdout__ is not None
    sys.__stdout__.write("\n" + json.dumps(outcome) + "\n")
