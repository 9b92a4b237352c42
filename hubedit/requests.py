"""Readers of requests: rows of every type from records and files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hubedit.errors import RequestError
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


def fact_from_counterfact(record: Mapping[str, Any]) -> dict[str, Any]:
    """Read one CounterFact record (Meng et al. 2022) into the fields of `FactEdit`."""
    rewrite = record["requested_rewrite"]
    neighbours = [
        {"prompt": prompt, "target": rewrite["target_true"]["str"]}
        for prompt in record.get("neighborhood_prompts", [])
    ]
    return {
        "case_id": record.get("case_id"),
        "prompt": rewrite["prompt"],
        "subject": rewrite["subject"],
        "target": rewrite["target_new"]["str"],
        "true_target": rewrite["target_true"]["str"],
        "paraphrases": record.get("paraphrase_prompts", []),
        "neighbours": neighbours,
        "attributes": record.get("attribute_prompts_same_subject", []),
    }


def fact_from_zsre(record: Mapping[str, Any]) -> dict[str, Any]:
    """Read one zsRE record (Levy et al. 2017, as model editors use it) into fields of `FactEdit`.

    `alt` is the target, `answers[0]` the true one, `rephrase` a paraphrase, `loc` and `loc_ans` a
    neighbour, whose prefix "nq question: " is dropped.
    """
    subject = record["subject"]
    answers = record.get("answers") or [None]
    neighbours = []
    if record.get("loc"):
        prompt = str(record["loc"]).removeprefix("nq question: ")
        neighbours = [{"prompt": prompt, "target": record.get("loc_ans")}]
    return {
        "case_id": record.get("case_id"),
        "prompt": record["src"],
        "subject": subject,
        "target": record["alt"],
        "true_target": answers[0],
        "paraphrases": [record["rephrase"]] if record.get("rephrase") else [],
        "neighbours": neighbours,
    }


def _from_subject_in_prompt(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn a prompt that names the subject verbatim into one with `{}`."""
    prompt, subject = fields.get("prompt"), fields.get("subject")
    if not isinstance(prompt, str) or not isinstance(subject, str) or "{}" in prompt:
        return fields
    if not subject.strip():
        return fields
    times = prompt.count(subject)
    if times != 1:
        found = "does not name" if times == 0 else f"names {times} times"
        raise ValueError(
            f"the prompt {prompt!r} {found} the subject {subject!r}; write {{}} where the "
            "subject goes"
        )
    return {**fields, "prompt": prompt.replace(subject, "{}")}


def rows_of(kind: type[RowT], records: Iterable[Any], source: str = "the request") -> list[RowT]:
    """Read rows of one type from records; for `FactEdit` those of CounterFact and zsRE too.

    Messages name the number of a row and its field, and quote nothing of a text to forget.

    Raises:
        RequestError: a record is not usable, or there is none.
    """
    rows: list[RowT] = []
    read = _RECORDS.get(kind.__name__, dict)
    for number, record in enumerate(records, start=1):
        where = f"row {number} of {source}"
        if not isinstance(record, Mapping):
            known = ", ".join(list(kind.model_fields)[:3])
            raise RequestError(f"{where} is not an object with fields such as {known}")
        try:
            rows.append(kind.from_record(read(record)))
        except KeyError as error:
            raise RequestError(f"{where} lacks the field {error}") from error
        except ValidationError as error:
            raise RequestError(f"{where}: {first_problem(error)}") from error
        except ValueError as error:
            raise RequestError(f"{where}: {error}") from error
    if not rows:
        raise RequestError(f"{source} holds no rows; give at least one")
    return rows


def _fact_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `FactEdit`, whichever way the record writes them."""
    if "requested_rewrite" in record:
        return _from_subject_in_prompt(fact_from_counterfact(record))
    if "src" in record and "alt" in record:
        return _from_subject_in_prompt(fact_from_zsre(record))
    fields = {key: value for key, value in record.items() if key != "split"}
    return _from_subject_in_prompt(fields)


_RECORDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"FactEdit": _fact_fields}


def read_records(path: Path) -> list[Any]:
    """Read the records of a .jsonl, .json, .csv or .parquet file.

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


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def request_digest(rows: Sequence[Row]) -> str:
    """SHA-256 (hex) of the rows in canonical JSON."""
    canonical = json.dumps(
        [row.model_dump(mode="json") for row in rows],
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


ROW_TYPES: dict[str, type[Row]] = {
    kind.__name__: kind for kind in (FactEdit, ForgetConcept, ForgetQA, ForgetRow, ForgetText)
}
