"""The rows of a request, from where it names: a file, a dataset, or one of these for each part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hubedit.corpora import DATASET, dataset_records
from hubedit.errors import RequestError
from hubedit.hub import Hub
from hubedit.readers.files import read_records
from hubedit.recipe import PARTS
from hubedit.requests import rows_of
from hubedit.rows import Row

Named = str | Path | Mapping[str, str]
"""A file or `hf://datasets/…`, or these by the part of the request that their rows belong to."""

RowT = TypeVar("RowT", bound=Row)


def gathered(
    kind: type[RowT], named: Named, hub: Callable[[], Hub], reader: str | None = None
) -> list[RowT]:
    """Read rows of one type; those of several parts in the order forget, retain, normal, holdout.

    They are the same rows, with the same digest, as those of one file that names the part of each.

    Args:
        kind: the type of row.
        named: where they are.
        hub: opens the Hub when a dataset is read.
        reader: how records are written; by default each tells its own.

    Raises:
        RequestError: a source cannot be read or is empty, a row is not usable, or rows of this
            type have no parts.
    """
    if not isinstance(named, Mapping):
        return rows_of(kind, _records(str(named), hub), str(named), reader)
    if "part" not in kind.model_fields:
        raise RequestError(
            f"rows of type {kind.__name__} have no parts such as {', '.join(named)}; name one "
            "source for all"
        )
    rows: list[RowT] = []
    for part in PARTS:
        if part in named:
            source = named[part]
            records = _of_part(part, _records(source, hub), source)
            rows += rows_of(kind, records, source, reader)
    return rows


def _records(source: str, hub: Callable[[], Hub]) -> list[Any]:
    if source.startswith(DATASET):
        return dataset_records(source, hub())
    return read_records(Path(source))


def _of_part(part: str, records: Iterable[Any], source: str) -> Iterator[Any]:
    """Records as those of a part; one that names another part is refused."""
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            yield record
            continue
        if record.get("part", part) != part:
            raise RequestError(
                f"row {number} of {source} names another part than {part}, which it was given as; "
                "give a file whose rows name their parts alone, without a part before it"
            )
        yield {**record, "part": part}
