"""Where cases come from: an edit's request, a file, a Hub dataset, or a plugin's small model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.corpora import DATASET, dataset_records
from hubedit.errors import RequestError, near_misses
from hubedit.evaluating.cases import FactCase
from hubedit.plugins import Plugins
from hubedit.requests import read_records, rows_of

if TYPE_CHECKING:
    from hubedit.editions import Edition
    from hubedit.hub import Hub

TEST = "test"
"""The split that is reported, unless another is named."""
DEV = "dev"
"""The split that settings are chosen on."""


_FACT = {"prompt", "subject", "target"}
"""Fields of every row that says what a fact becomes, of whatever type it is."""


@dataclass(frozen=True)
class Source:
    """Cases and where they are from, in words."""

    cases: Sequence[FactCase]
    words: str


def named_cases(
    name: str,
    plugins: Plugins,
    hub: Callable[[], Hub],
    *,
    split: str = TEST,
    reader: str | None = None,
) -> Source:
    """Read the cases that a user names.

    Args:
        name: a file, `hf://datasets/owner/name[/config][@rev][#split]`, or a small model of a
            plugin.
        plugins: those that offer small models.
        hub: opens the Hub, for a dataset.
        split: of a small model's cases, or of a file whose rows name one.
        reader: how the records are written; by default each tells its own.

    Raises:
        RequestError: there are no such cases.
    """
    if name.startswith(DATASET):
        records = dataset_records(name, hub(), cached=True)
        return Source(rows_of(FactCase, records, name, reader), name)
    path = Path(name).expanduser()
    if path.is_file():
        cases = rows_of(FactCase, read_records(path), path.name, reader)
        return _of_split(cases, split, path.name)
    offered = plugins.models()
    if name not in offered:
        raise RequestError(
            f"there are no cases named {name!r}; give a file of rows, {DATASET}owner/name, or a "
            f"small model that a plugin ships ({near_misses(name, offered)})"
        )
    model = offered[name]
    if split not in model.splits:
        raise RequestError(
            f"{name} has no cases of split {split!r}; {near_misses(split, model.splits)}"
        )
    return Source(rows_of(FactCase, model.cases(split), name), f"{name}, split {split}")


def _of_split(cases: Sequence[FactCase], split: str, where: str) -> Source:
    splits = {case.split for case in cases}
    if splits == {None}:
        return Source(cases, where)
    chosen = [case for case in cases if case.split == split]
    if not chosen:
        known = near_misses(split, {str(name) for name in splits})
        raise RequestError(f"{where} has no cases of split {split!r}; {known}")
    return Source(chosen, f"{where}, split {split}")


def own_cases(edition: Edition) -> Source:
    """The facts that the edits of a stack were asked for; of one fact, the last word.

    Raises:
        RequestError: no edit says which facts it changed.
    """
    kept: dict[tuple[str, str], FactCase] = {}
    for manifest in edition.manifests:
        rows = [row for row in manifest.request.rows or () if row.keys() >= _FACT]
        for case in rows_of(FactCase, rows) if rows else ():
            kept[case.prompt, case.subject] = case
    if not kept:
        raise RequestError(
            f"{edition.place.title} does not say which facts it changed; name cases with --cases"
        )
    return Source(list(kept.values()), "the edit's own request")
