"""A model of a bench: loaded once, edited group by group, scored and put back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.benching.cells import Cell
from hubedit.benching.rebuilding import edited, take_back, write
from hubedit.context import Silent, Talk
from hubedit.errors import (
    CollapseError,
    ConfigError,
    EmptyDeltaError,
    HubEditError,
    NonFiniteUpdateError,
    UnsupportedModelError,
)
from hubedit.evaluating import neutral
from hubedit.evaluating.answers import Heard, hear
from hubedit.evaluating.cases import FactCase, Item, items
from hubedit.evaluating.scoring import Told, item_scores, neutral_scores
from hubedit.method import Method
from hubedit.rows import FactEdit, Row
from hubedit.run import Job

if TYPE_CHECKING:
    from hubedit.evaluating.neutral import Predictions, Shift
    from hubedit.models import LoadedModel

NEUTRAL = 16
"""Neutral texts that are read after each run, at most."""


@dataclass
class Bench:
    """One model with the cases that it is scored on.

    `corpus` are texts of which those that name no subject of a case are read as neutral ones.
    """

    name: str
    directory: Path
    cases: Sequence[FactCase]
    corpus: Sequence[str]
    seed: int = 0
    _heard: dict[tuple[str, str | None, str | None], Heard] = field(default_factory=dict)

    @cached_property
    def model(self) -> LoadedModel:
        """The model, loaded when it is first edited."""
        from hubedit import models

        return models.load(self.directory)

    @cached_property
    def texts(self) -> Sequence[str]:
        """The neutral texts."""
        subjects = [case.subject for case in self.cases]
        kept = (text for text in self.corpus if not any(name in text for name in subjects))
        return [text for text, _ in zip(kept, range(NEUTRAL), strict=False)]

    @cached_property
    def _unedited(self) -> Sequence[Predictions]:
        return neutral.read(self.model, self.texts)

    def _before(self, asked: Sequence[Item]) -> list[Heard]:
        """What the unedited model says; the model must be so. Asked once for each item."""
        new = {_key(item): item for item in asked if _key(item) not in self._heard}
        heard = hear(self.model, list(new.values()))
        self._heard.update(zip(new, heard, strict=True))
        return [self._heard[_key(item)] for item in asked]

    def groups(self, edits: int) -> list[Sequence[FactCase]]:
        """The cases in groups of so many that are made at once; a rest is left out."""
        return [
            self.cases[start : start + edits]
            for start in range(0, len(self.cases) - edits + 1, edits)
        ]

    def run(self, job: Job, edits: int, talk: Talk | None = None) -> Cell:
        """Make and score every group of cases by one method; a refusal becomes the cell's reason.

        Each group is made on the unedited model, which is there again afterwards. What is scored is
        the base with the encoded delta applied to its stored bits.
        """
        talk = talk or Silent()
        blank = Cell(
            method=job.method.name,
            model=self.name,
            edits=edits,
            state="n/a",
            config=job.config.model_dump(mode="json"),
        )
        reason = unfit(job.method, self.model.layout.architecture)
        if reason:
            return blank.model_copy(update={"reason": reason})
        told: list[Told] = []
        moved: list[Shift] = []
        sizes, seconds, stopped = [], [], []
        label = f"{job.method.name} on {self.name}, {edits} at once"
        groups = self.groups(edits)
        try:
            with talk.progress(label, total=len(groups)) as bar:
                for number, group in enumerate(groups):
                    asked = items(group)
                    before, quiet = self._before(asked), self._unedited
                    began = time.perf_counter()
                    try:
                        after = edited(self.model, replace(job, rows=_rows(job, group)))
                    except (CollapseError, EmptyDeltaError, NonFiniteUpdateError) as error:
                        stopped.append(str(error))
                        told.append(Told(number, asked, before, before))
                        moved += neutral.shifts(quiet, quiet)
                    else:
                        seconds.append((time.perf_counter() - began) / len(group))
                        sizes.append(after.nbytes)
                        write(self.model, after.tensors)
                        told.append(Told(number, asked, before, hear(self.model, asked)))
                        moved += neutral.shifts(quiet, neutral.read(self.model, self.texts))
                        take_back(self.model, after.tensors)
                    bar.advance()
        except (UnsupportedModelError, ConfigError) as error:
            return blank.model_copy(update={"reason": str(error)})
        except HubEditError as error:
            return blank.model_copy(update={"state": "failed", "reason": str(error)})
        finally:
            self.model.restore()
        return blank.model_copy(
            update={
                "state": "done",
                "runs": len(groups),
                "seconds": round(statistics.median(seconds), 4) if seconds else None,
                "delta_bytes": int(statistics.median(sizes)) if sizes else None,
                "scores": tuple(item_scores(told, self.seed) + neutral_scores(moved, self.seed)),
                "stopped": tuple(stopped),
            }
        )


def _rows(job: Job, group: Sequence[FactCase]) -> Sequence[Row]:
    """What a method is told of cases, as rows of the type that it takes."""
    told = [case.told().model_dump(mode="json", exclude_defaults=True) for case in group]
    return [job.method.row_type().model_validate(fields) for fields in told]


def unfit(method: type[Method[Any, Any]], architecture: str) -> str:
    """Why a method cannot edit facts in models of an architecture; empty if it can."""
    if not issubclass(method.row_type(), FactEdit):
        return f"it takes {method.row_type().__name__} rows, and a bench edits facts"
    if architecture not in method.architectures:
        return f"edits {', '.join(sorted(method.architectures))} models alone"
    return ""


def _key(item: Item) -> tuple[str, str | None, str | None]:
    return item.prompt, item.target, item.rival
