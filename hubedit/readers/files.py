"""Files of records: JSON lines, JSON, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubedit.errors import RequestError


def read_records(path: Path) -> list[Any]:
    """Read the records of a .jsonl, .json, .csv, .parquet or .txt file.

    In a CSV file a cell that begins with `[` or `{"` is JSON, and an empty one is left out.

    Raises:
        RequestError: the file is missing, cannot be read, or has another suffix.
    """
    if not path.is_file():
        raise RequestError(f"the request file {path} does not exist")
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise RequestError(
            f"{path.name} has the suffix {path.suffix!r}; requests are {', '.join(_READERS)} files"
        )
    try:
        return reader(path)
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason}") from error
    except RecursionError as error:
        raise RequestError(f"{path} is nested too deep") from error


def _read_jsonl(path: Path) -> list[Any]:
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise RequestError(f"line {number} of {path} is not JSON: {error}") from error
    return records


def _read_json(path: Path) -> list[Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RequestError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, list) else [value]


def _read_csv(path: Path) -> list[Any]:
    records = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            if None in row:
                raise RequestError(f"row {number} of {path} has more cells than the header")
            try:
                records.append({key: _cell(text) for key, text in row.items() if text})
            except json.JSONDecodeError as error:
                raise RequestError(
                    f"row {number} of {path} holds a list that is not JSON"
                ) from error
    return records


def _cell(text: str) -> Any:
    return json.loads(text) if text.startswith(("[", '{"')) else text


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path} is not a Parquet file") from error
    return [without_none(record) for record in table.to_pylist()]


def without_none(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without the fields that are None, as tables write what is not there."""
    return {key: value for key, value in record.items() if value is not None}


def _read_text(path: Path) -> list[Any]:
    """One record a paragraph, or a line where no line is empty."""
    text = path.read_text(encoding="utf-8")
    pieces = text.split("\n\n") if "\n\n" in text.strip() else text.splitlines()
    return [{"text": piece.strip()} for piece in pieces if piece.strip()]


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
