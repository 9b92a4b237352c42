"""Readers of records: what public data sets hold, as the fields of rows.

A data set is added by a module with its `SHAPES`, named in the table below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hubedit.errors import RequestError, near_misses
from hubedit.readers import counterfact, forgetting, knowedit, pararel, zsre
from hubedit.readers.shape import Fields, Record, Shape

ROWS = "rows"
"""The name of records that are written as rows already."""

SHAPES: tuple[Shape, ...] = (
    *counterfact.SHAPES,
    *zsre.SHAPES,
    *knowedit.SHAPES,
    *pararel.SHAPES,
    *forgetting.SHAPES,
)
"""Every shape; of those that know a record, the first one reads it."""

CASE_FIELDS = frozenset({"portability", "generations", "references", "split"})
"""Fields of a case to be scored that a request has no use for."""


def shape_of(kinds: Iterable[str], record: Record, name: str | None = None) -> Shape | None:
    """The shape of a record that becomes a row of one of these types; None if it is a row.

    Args:
        name: of the shape, where the user says it; told by the record's fields if None.

    Raises:
        RequestError: there is no such shape for these types.
    """
    offered = {shape.name: shape for shape in SHAPES if shape.row in set(kinds)}
    if name is not None:
        if name != ROWS and name not in offered:
            raise RequestError(
                f"no reader of such rows is named {name!r}; {near_misses(name, [ROWS, *offered])}"
            )
        return offered.get(name)
    return next((one for one in offered.values() if one.known and one.known(record)), None)


def fields_of(kind: type[Any], record: Record, name: str | None = None) -> list[Fields]:
    """The fields of every row of a type that one record holds.

    Raises:
        RequestError: no reader has that name.
        KeyError: the record lacks a field.
        ValueError: it cannot be read.
    """
    kinds = [base.__name__ for base in kind.__mro__]
    shape = shape_of(kinds, record, name)
    found = [dict(record)] if shape is None else list(shape.read(record))
    if "FactEdit" not in kinds:
        return found
    if shape is None:
        found = [_from_subject_in_prompt(fields) for fields in found]
    known: Mapping[str, Any] = getattr(kind, "model_fields", {})
    unused = CASE_FIELDS - known.keys()
    return [{key: value for key, value in row.items() if key not in unused} for row in found]


def _from_subject_in_prompt(fields: Fields) -> Fields:
    """Turn a prompt that names the subject verbatim, and once, into one with `{}`."""
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


__all__ = ["CASE_FIELDS", "ROWS", "SHAPES", "Fields", "Record", "Shape", "fields_of", "shape_of"]
