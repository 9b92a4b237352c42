"""What a bench of forgetting finds: its cells, what was asked, and which methods pass."""

from __future__ import annotations

from typing import Any, Literal

from hubedit.manifest import Record
from hubedit.measured import Value

ORIGINAL = "original"
ORACLE = "retain oracle"
"""The rows beside those of methods: the model before, and one that was never told."""
QUALITY = 0.05
UTILITY = 0.9
"""A method passes with a forget quality above the one and this share of the original's utility."""


class ForgottenCell(Record):
    """What one method made of one request to a model.

    `state` is done, or n/a where the method does not do this, or failed; `reason` says why.
    `measures` are those of `hubedit.forgetting.measures`, and extraction strength after rounding
    to four bits (`int4`) and after learning some forgotten answers again (`relearn`, asked of the
    others). `overruled` are guards that the method would have stopped at.
    """

    method: str
    model: str
    request: str
    state: Literal["done", "n/a", "failed"]
    reason: str = ""
    seconds: float | None = None
    delta_bytes: int | None = None
    measures: dict[str, Value] = {}
    overruled: tuple[str, ...] = ()
    config: dict[str, Any] = {}

    def figure(self, name: str) -> float | None:
        """One measure, or None if it was not taken."""
        return self.measures[name].value if name in self.measures else None


class Asked(Record):
    """One request to one model.

    `parts` are the cases of each part that every cell is asked, `held_back` rows of the part
    holdout that are asked and that no method is told. `chosen` names the requests that settings
    of methods were chosen on, if the model comes with some. `sha256` is of the rows; of a request
    of one's own it is an HMAC under this machine's secret, by which nobody can test guesses.
    """

    model: str
    request: str
    oracle: str | None
    parts: dict[str, int]
    held_back: int
    sha256: str
    chosen: str = ""


class ForgottenMatrix(Record):
    """A finished bench of forgetting: every cell, by model, request and method."""

    hubedit: str
    seed: int
    threads: int
    methods: tuple[str, ...]
    requests: tuple[Asked, ...]
    cells: tuple[ForgottenCell, ...]

    def passing(self) -> list[str]:
        """The methods that pass on every request: see `QUALITY` and `UTILITY`."""
        before = {(c.model, c.request): c for c in self.cells if c.method == ORIGINAL}

        def passed(cell: ForgottenCell) -> bool:
            quality, kept = cell.figure("forget-quality"), cell.figure("utility")
            whole = before[cell.model, cell.request].figure("utility")
            if quality is None or kept is None or whole is None:
                return False
            return quality > QUALITY and kept >= UTILITY * whole

        return [
            method
            for method in self.methods
            if all(passed(cell) for cell in self.cells if cell.method == method)
        ]
