"""Cells of a bench: what one method did on one model; kept on disk when done."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from hubedit.artifacts import canonical_json
from hubedit.evaluating.scoring import Score
from hubedit.manifest import Record

FORMAT = 1
"""Of what a cell holds and how it is measured; cells of another one are made anew."""
FOLDER = "cells"
NAMED = ("model", "request", "method", "edits")
"""What of its key stands in the name of a cell's file."""


class Cell(Record):
    """What one method did on one model, over all its runs.

    `state` is done, or n/a where the method does not do this, or failed; `reason` says why. A run
    makes `edits` edits at once, on the unedited model; `seconds` are per edit and `delta_bytes` per
    run, medians. `stopped` are the reasons of runs that the method's guards stopped, which are
    scored as the unedited model.
    """

    method: str
    model: str
    edits: int
    state: Literal["done", "n/a", "failed"]
    reason: str = ""
    runs: int = 0
    seconds: float | None = None
    delta_bytes: int | None = None
    scores: tuple[Score, ...] = ()
    stopped: tuple[str, ...] = ()
    config: dict[str, Any] = {}

    def score(self, group: str, metric: str) -> Score | None:
        """One figure, or None if it was not measured."""
        for score in self.scores:
            if (score.group, score.metric) == (group, metric):
                return score
        return None


CellT = TypeVar("CellT", bound=Record)


class Cells(Generic[CellT]):
    """Finished cells of one kind in a directory, each under all that it depends on.

    Args:
        directory: of the bench; it need not exist.
        kind: the class of the cells.
    """

    def __init__(self, directory: Path, kind: type[CellT]) -> None:
        self.folder, self._kind = directory / FOLDER, kind

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the cell of a key lies."""
        named = canonical_json({**key, "format": FORMAT})
        digest = hashlib.sha256(named).hexdigest()[:16]
        words = "-".join(str(key[name]) for name in NAMED if name in key)
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', words)}-{digest}.json"

    def get(self, key: Mapping[str, Any]) -> CellT | None:
        """The finished cell, or None; a damaged file counts as none."""
        try:
            return self._kind.model_validate_json(self.path(key).read_bytes())
        except (OSError, ValidationError):
            return None

    def put(self, key: Mapping[str, Any], cell: CellT) -> None:
        """Keep a finished cell; it appears by one rename."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_name(f".{path.name}.{os.getpid()}.partial")
        text = json.dumps(cell.model_dump(mode="json"), indent=1, sort_keys=True)
        work.write_text(text + "\n", encoding="utf-8")
        os.replace(work, path)
