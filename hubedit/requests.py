"""Requests: rows of every type from records, and what names a request."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import ValidationError

from hubedit.errors import RequestError
from hubedit.readers import fields_of
from hubedit.readers.files import read_records, without_none
from hubedit.rows import (
    FactEdit,
    ForgetConcept,
    ForgetQA,
    ForgetRow,
    ForgetText,
    Row,
    first_problem,
)

RowT = TypeVar("RowT", bound=Row)


def rows_of(
    kind: type[RowT],
    records: Iterable[Any],
    source: str = "the request",
    reader: str | None = None,
) -> list[RowT]:
    """Read rows of one type from records: its own fields, or those of a known data set.

    Messages name the number of a record and its field, and quote nothing of a text to forget.

    Args:
        kind: the type of row.
        records: as a file holds them.
        source: what messages call them.
        reader: the name of a shape of `hubedit.readers`; by default each record tells its own.

    Raises:
        RequestError: a record is not usable, or there is none.
    """
    rows: list[RowT] = []
    for number, record in enumerate(records, start=1):
        where = f"row {number} of {source}"
        if not isinstance(record, Mapping):
            known = ", ".join(list(kind.model_fields)[:3])
            raise RequestError(f"{where} is not an object with fields such as {known}")
        try:
            rows += [kind.from_record(fields) for fields in fields_of(kind, record, reader)]
        except KeyError as error:
            raise RequestError(f"{where} lacks the field {error}") from error
        except ValidationError as error:
            raise RequestError(f"{where}: {first_problem(error)}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise RequestError(f"{where}: {error}") from error
    if not rows:
        raise RequestError(f"{source} holds no rows; give at least one")
    return rows


@contextmanager
def of_row(number: int) -> Iterator[None]:
    """Say in what is wrong with a text which row of the request it is from, counted from 1."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"row {number} of the request: {error}") from error


def request_digest(rows: Sequence[Row]) -> str:
    """SHA-256 (hex) of the rows in canonical JSON."""
    canonical = json.dumps(
        [row.model_dump(mode="json") for row in rows],
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def refuse_overlap(rows: Sequence[Row]) -> None:
    """Refuse a request whose part forget shares items with another, white space and case aside.

    Raises:
        RequestError: gives counts and row numbers, and quotes nothing.
    """
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, ForgetRow | ForgetConcept):
            plain = " ".join(row.content.split()).casefold()
            numbers[row.part].setdefault(plain, number)
    forget = numbers.pop("forget", {})
    for part, others in numbers.items():
        both = forget.keys() & others.keys()
        if both:
            one, other = min((forget[item], others[item]) for item in both)
            raise RequestError(
                f"the request has the same item in the parts forget and {part}, {len(both)} times "
                f"(such as rows {one} and {other}); leave each in one part"
            )


ROW_TYPES: dict[str, type[Row]] = {
    kind.__name__: kind for kind in (FactEdit, ForgetConcept, ForgetQA, ForgetRow, ForgetText)
}

__all__ = [
    "ROW_TYPES",
    "of_row",
    "read_records",
    "refuse_overlap",
    "request_digest",
    "rows_of",
    "without_none",
]
