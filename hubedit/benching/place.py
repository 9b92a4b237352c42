"""One request to one model: what it is, and the cell of each method that is let loose on it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit import __version__
from hubedit.artifacts import cache_home, canonical_json
from hubedit.benching.cells import Cells
from hubedit.benching.forgotten import ORACLE, ORIGINAL, Asked, ForgottenCell
from hubedit.benching.rebuilding import edited, take_back, write
from hubedit.context import Talk
from hubedit.editions import open_edition
from hubedit.errors import ConfigError, HubEditError, UnsupportedModelError
from hubedit.evaluating.evaluation import loaded
from hubedit.evaluating.sources import DEV
from hubedit.forgetting import cases as asking
from hubedit.forgetting.hearing import Heard, hear
from hubedit.forgetting.measures import values
from hubedit.forgetting.robustness import came_back, quantised, relearned
from hubedit.hookspecs import SmallModel, SmallRequest
from hubedit.hub import Hub
from hubedit.layouts import LAYOUTS
from hubedit.measured import Value
from hubedit.plugins import Plugins
from hubedit.recipe import make_recipe
from hubedit.requests import ROW_TYPES, rows_of
from hubedit.rows import ForgetRow
from hubedit.run import Job, prepare
from hubedit.secret import keyed

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

SHOWN = 64
"""Forgotten answers that are learnt again, at most; as many others are asked or more."""


@dataclass
class Place:
    """One request to one model; models are loaded when a cell needs them."""

    small: SmallModel
    request: SmallRequest
    hub: Callable[[], Hub]
    limit: int
    seed: int
    own: bool = False
    """Whether the request is the user's: its hash is then keyed by this machine's secret."""

    def __post_init__(self) -> None:
        self._base = open_edition(str(self.small.directory), self.hub)
        rows = rows_of(ROW_TYPES["ForgetRow"], list(self.request.rows()), self.request.name)
        kept = [row for row in rows if isinstance(row, ForgetRow) and row.part == "holdout"]
        back = kept[len(kept) // 2 :] if len(kept) > 1 else kept
        hidden = {id(row) for row in back}
        self._told = [row.model_dump(mode="json") for row in rows if id(row) not in hidden]
        spoken = {id(row) for row in kept} - hidden
        self._cases = asking.cases([row for row in rows if id(row) not in spoken], self.limit)
        self.references = [ORIGINAL, *([ORACLE] if self.request.oracle is not None else [])]
        self.asked = Asked(
            model=self.small.name,
            request=self.request.name,
            oracle=None if self.request.oracle is None else Path(self.request.oracle).name,
            parts=asking.counts(self._cases),
            held_back=len(back),
            sha256=self._digest(canonical_json([row.model_dump(mode="json") for row in rows])),
            chosen=", ".join(one.name for one in self.small.requests if one.split == DEV)
            if self.small.settings
            else "",
        )

    def _digest(self, rows: bytes) -> str:
        return keyed(cache_home(), rows) if self.own else hashlib.sha256(rows).hexdigest()

    def settings(self, method: str) -> Mapping[str, Any]:
        """What the model comes with for a method."""
        return self.small.settings.get(method, {})

    @cached_property
    def model(self) -> LoadedModel:
        """The model, loaded when it is first edited."""
        from hubedit import models

        return models.load(self.small.directory)

    @cached_property
    def _said(self) -> list[Heard] | None:
        """What the retrained model says to the cases."""
        if self.request.oracle is None:
            return None
        with loaded(open_edition(str(self.request.oracle), self.hub)) as oracle:
            return hear(oracle, self._cases)

    def cell(
        self,
        name: str,
        settings: Mapping[str, Any],
        plugins: Plugins,
        store: Cells[ForgottenCell],
        fresh: bool,
        talk: Talk,
    ) -> ForgottenCell:
        """The cell of a method or reference, from the store or made now and kept there."""
        import torch

        blank = ForgottenCell(
            model=self.small.name, request=self.request.name, method=name, state="n/a"
        )
        key: dict[str, Any] = {
            "model": blank.model,
            "request": blank.request,
            "method": name,
            "base": self._base.stack.base.digest,
            "oracle": self._oracle_digest,
            "rows": self.asked.sha256,
            "limit": self.limit,
            "hubedit": __version__,
            "threads": torch.get_num_threads(),
        }
        job = None
        if name not in (ORIGINAL, ORACLE):
            reason = self._unfit(name, plugins)
            if reason:
                return blank.model_copy(update={"reason": reason})
            job = self._job(name, settings, plugins)
            config = job.config.model_dump(mode="json")
            key |= {"plugin": job.plugin.record().sha256, "config": config, "seed": self.seed}
        kept = None if fresh else store.get(key)
        if kept is not None:
            return kept
        talk.log(f"{self.small.name}, {self.request.name}: {name}")
        cell = self._reference(blank) if job is None else self._made(job, blank, talk)
        if cell.state != "failed":
            store.put(key, cell)
        return cell

    @cached_property
    def _oracle_digest(self) -> str | None:
        if self.request.oracle is None:
            return None
        return open_edition(str(self.request.oracle), self.hub).stack.result

    def _unfit(self, name: str, plugins: Plugins) -> str:
        """Why a method cannot take the request; empty if it can."""
        method = plugins.method(name)[0]
        if not issubclass(method.row_type(), ForgetRow):
            return f"it takes {method.row_type().__name__} rows, and this request is to forget"
        layout = LAYOUTS.get(self._base.stack.base.model_type)
        if layout is None or layout.architecture not in method.architectures:
            return f"edits {', '.join(sorted(method.architectures))} models alone"
        return ""

    def _job(self, method: str, settings: Mapping[str, Any], plugins: Plugins) -> Job:
        keys = {
            "base": str(self.small.directory),
            "plugin": method,
            "config": dict(settings),
            "seed": self.seed,
            "request": self._told,
        }
        return prepare(make_recipe(keys), self.hub, plugins=plugins)

    def _reference(self, blank: ForgottenCell) -> ForgottenCell:
        if blank.method == ORIGINAL:
            measures = self._measures(self.model)
        else:
            with loaded(open_edition(str(self.request.oracle), self.hub)) as oracle:
                measures = self._measures(oracle, self._said)
        return blank.model_copy(update={"state": "done", "measures": measures})

    def _made(self, job: Job, blank: ForgottenCell, talk: Talk) -> ForgottenCell:
        blank = blank.model_copy(update={"config": job.config.model_dump(mode="json")})
        began = time.perf_counter()
        try:
            after = edited(self.model, job, force=True, talk=talk)
        except (UnsupportedModelError, ConfigError) as error:
            return blank.model_copy(update={"reason": str(error)})
        except HubEditError as error:
            return blank.model_copy(update={"state": "failed", "reason": str(error)})
        took = time.perf_counter() - began
        write(self.model, after.tensors)
        try:
            measures = self._measures(self.model)
        finally:
            take_back(self.model, after.tensors)
        return blank.model_copy(
            update={
                "state": "done",
                "seconds": round(took, 1),
                "delta_bytes": after.nbytes,
                "measures": measures,
                "overruled": after.overruled,
            }
        )

    def _measures(self, model: LoadedModel, heard: list[Heard] | None = None) -> dict[str, Value]:
        """All measures of a model, of which it may be known already what it says to the cases."""
        found = values(heard or hear(model, self._cases), self._said)
        forget = [case for case in self._cases if case.part == "forget"]
        with quantised(model, 4):
            point = came_back("int4", 4, model, forget)
        found["int4"] = Value(value=point.strength, n=point.n)
        half = len(forget) // 2
        if half:
            shown = forget[:half][:SHOWN]
            with relearned(model, shown):
                point = came_back("relearn", len(shown), model, forget[half:])
            found["relearn"] = Value(value=point.strength, n=point.n)
        return found
