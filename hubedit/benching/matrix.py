"""Methods × models × numbers of edits: which cells there are, and how each is come by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubedit import __version__, context
from hubedit.benching.cells import FOLDER, Cell, Cells
from hubedit.benching.running import Bench, unfit
from hubedit.context import Silent, Talk
from hubedit.editions import open_edition
from hubedit.errors import OutputError, RequestError
from hubedit.evaluating.cases import FactCase, told_apart
from hubedit.evaluating.sources import TEST, Source, named_cases
from hubedit.hub import Hub
from hubedit.layouts import LAYOUTS
from hubedit.manifest import Record
from hubedit.plugins import Plugins, load_plugins
from hubedit.recipe import make_recipe
from hubedit.run import Job, prepare

CASES_FILE = "cases.jsonl"
"""Where a directory of a model keeps its cases."""
RESULT = "bench"
"""What the files of a finished bench are called, before their suffix."""
COUNT = 50
"""How many cases, at least."""


class Column(Record):
    """One model of a bench, with the cases that every cell of it is scored on."""

    model: str
    architecture: str
    cases: str
    n: int
    case_ids: tuple[str, ...]
    sha256: str


class Matrix(Record):
    """A finished bench: every cell, by model, method and number of edits."""

    hubedit: str
    seed: int
    threads: int
    methods: tuple[str, ...]
    edits: tuple[int, ...]
    models: tuple[Column, ...]
    cells: tuple[Cell, ...]


def bench(
    methods: Sequence[str],
    models: Sequence[str],
    edits: Sequence[int] = (1, 10, 50),
    *,
    output: Path,
    cases: str | None = None,
    split: str = TEST,
    reader: str | None = None,
    count: int | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    fresh: bool = False,
    seed: int = 0,
    threads: int | None = None,
    plugins: Plugins | None = None,
    hub: Callable[[], Hub] | None = None,
    talk: Talk | None = None,
    done: Callable[[Cell], None] | None = None,
) -> Matrix:
    """Run every method on every model, with every number of edits at once.

    Every cell of a model is scored on the same cases, in as many runs as they fill. A cell that is
    finished in `output` is taken from there if all it depends on is the same: model, cases, method,
    its settings and code, seed, threads.

    Args:
        methods: names of methods; their settings are the defaults, but for `settings`.
        models: names of small models that plugins ship, or directories.
        edits: how many facts are changed at once.
        output: a directory for the cells; it may hold those of an earlier run.
        cases: for all models, instead of their own; see `hubedit.evaluate`.
        split: which cases; test by default, on which no setting may have been chosen.
        reader: how records are written.
        count: how many cases; by default the largest of `edits`, and 50 at least.
        settings: by name of a method, what differs from its defaults.
        fresh: make every cell anew.
        seed: of methods and intervals.
        threads: of torch; by default as it is.
        plugins: by default all that are installed.
        hub: opens the Hub, for cases that lie there.
        talk: how progress is told.
        done: called with each cell when it is there.

    Raises:
        HubEditError: a name is not known, or cases cannot be read.
    """
    import torch

    plugins, talk, opened = plugins or load_plugins(), talk or Silent(), hub or Hub
    check_names(methods, settings or {}, plugins)
    check_output(output)
    store = Cells(output, Cell)
    wanted = max([*edits, count or COUNT])
    with context.threads(threads):
        found: list[Cell] = []
        columns = []
        with talk.progress("cells", total=len(methods) * len(models) * len(edits)) as bar:
            for name in models:
                directory, source = _model(name, plugins, opened, cases, split, reader)
                chosen = spread(told_apart(source.cases), wanted)
                if len(chosen) < max(edits):
                    raise RequestError(
                        f"{name} has {len(chosen)} cases that change facts of their own, too few "
                        f"for {max(edits)} edits at once; give smaller --edits"
                    )
                place = _Place(name, directory, source, chosen, seed)
                columns.append(place.column)
                for method in methods:
                    reason = place.unfit(method, plugins)
                    chosen_settings = (settings or {}).get(method, {})
                    job = None if reason else place.job(method, chosen_settings, plugins)
                    for size in edits:
                        if job is None:
                            cell = Cell(
                                method=method, model=name, edits=size, state="n/a", reason=reason
                            )
                        else:
                            cell = _cell(place, job, size, store, fresh, talk)
                        found.append(cell)
                        bar.advance()
                        if done is not None:
                            done(cell)
        return Matrix(
            hubedit=__version__,
            seed=seed,
            threads=torch.get_num_threads(),
            methods=tuple(methods),
            edits=tuple(edits),
            models=tuple(columns),
            cells=tuple(found),
        )


def _cell(place: _Place, job: Job, edits: int, store: Cells[Cell], fresh: bool, talk: Talk) -> Cell:
    """A cell from the store, or made now and kept there; one that failed is not kept."""
    import torch

    key = place.key(job, edits, torch.get_num_threads())
    kept = None if fresh else store.get(key)
    if kept is not None:
        return kept
    cell = place.cell(job, edits, talk)
    if cell.state != "failed":
        store.put(key, cell)
    return cell


def check_names(
    methods: Sequence[str], settings: Mapping[str, Mapping[str, Any]], plugins: Plugins
) -> None:
    """Refuse a method that is not there, and settings of one that is not benched.

    Raises:
        HubEditError: names it.
    """
    for name in methods:
        plugins.method(name)
    unknown = set(settings) - set(methods)
    if unknown:
        raise RequestError(f"there are settings for {min(unknown)!r}, which is not benched")


def check_output(output: Path) -> None:
    """Refuse a directory that holds something else than a bench, and take its old result away.

    Raises:
        OutputError: says what to do.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; give a directory with -o")
    if output.is_dir() and any(output.iterdir()) and not (output / FOLDER).is_dir():
        raise OutputError(f"{output} holds something else than a bench; give another with -o")
    for old in output.glob(f"{RESULT}.*"):
        old.unlink()
    (output / FOLDER).mkdir(parents=True, exist_ok=True)


def spread(cases: Sequence[FactCase], count: int) -> list[FactCase]:
    """So many cases, evenly taken from all; all of fewer."""
    if len(cases) <= count:
        return list(cases)
    return [cases[index * len(cases) // count] for index in range(count)]


def _model(
    name: str,
    plugins: Plugins,
    hub: Callable[[], Hub],
    cases: str | None,
    split: str,
    reader: str | None,
) -> tuple[Path, Source]:
    """The directory of a model and the cases that it is scored on.

    Raises:
        RequestError: there is no such model, or it has no cases.
    """
    offered = plugins.models()
    directory = offered[name].directory if name in offered else Path(name).expanduser()
    if not directory.is_dir():
        known = ", ".join(sorted(offered)) or "none is installed"
        raise RequestError(
            f"there is no model {name!r}; give a directory, or a small model of a plugin ({known})"
        )
    own = name if name in offered else str(directory / CASES_FILE)
    if cases is None and name not in offered and not Path(own).is_file():
        raise RequestError(f"{name} has no {CASES_FILE}; name cases with --cases")
    return directory, named_cases(cases or own, plugins, hub, split=split, reader=reader)


class _Place:
    """A model of a bench with its cases; it is loaded when a cell needs it."""

    def __init__(
        self, name: str, directory: Path, source: Source, cases: Sequence[FactCase], seed: int
    ) -> None:
        edition = open_edition(str(directory), Hub)
        layout = LAYOUTS.get(edition.stack.base.model_type)
        self.architecture = layout.architecture if layout else "unknown"
        self.directory, self.seed, self.cases, self.name = directory, seed, cases, name
        dumped = [case.model_dump(mode="json", exclude_defaults=True) for case in cases]
        text = json.dumps(dumped, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        self.column = Column(
            model=name,
            architecture=self.architecture,
            cases=source.words,
            n=len(cases),
            case_ids=tuple(case.case_id or case.text for case in cases),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        self._base = edition.stack.base.digest
        self._bench: Bench | None = None

    def unfit(self, method: str, plugins: Plugins) -> str:
        """Why a method cannot edit facts in this model; empty if it can."""
        return unfit(plugins.method(method)[0], self.architecture)

    def job(self, method: str, settings: Mapping[str, Any], plugins: Plugins) -> Job:
        """What a method is given, but for its rows."""
        first = self.cases[0].told().model_dump(mode="json", exclude_defaults=True)
        keys = {
            "base": str(self.directory),
            "plugin": method,
            "config": dict(settings),
            "seed": self.seed,
            "request": [first],
        }
        return prepare(make_recipe(keys), Hub, plugins=plugins)

    def key(self, job: Job, edits: int, threads: int) -> dict[str, Any]:
        """All that a cell depends on."""
        return {
            "model": self.name,
            "method": job.method.name,
            "edits": edits,
            "base": self._base,
            "cases": self.column.sha256,
            "plugin": job.plugin.record().sha256,
            "config": job.config.model_dump(mode="json"),
            "hubedit": __version__,
            "seed": self.seed,
            "threads": threads,
        }

    def cell(self, job: Job, edits: int, talk: Talk) -> Cell:
        """Make a cell."""
        if self._bench is None:
            talk.log(f"loading {self.name}")
            corpus = job.corpus.texts if job.corpus else ()
            self._bench = Bench(self.name, self.directory, self.cases, corpus, self.seed)
        return self._bench.run(job, edits, talk)
