"""A shape: one way in which a public data set writes its records, and how it becomes fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
Fields = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """One way to write records.

    `name` is what a user types, `row` names the type of row that the records become, `known` tells
    such a record by its fields, `read` gives the fields of each row in it (most hold one), and
    `source` says where the data set comes from. A shape with `known` None is used by name alone.

    `read` raises KeyError for a missing field, and ValueError for what cannot be read.
    """

    name: str
    row: str
    known: Callable[[Record], bool] | None
    read: Callable[[Record], Iterable[Fields]]
    source: str


def holed(prompt: Any, subject: Any) -> str:
    """A prompt that names its subject, with `{}` where it does so last.

    Raises:
        ValueError: it does not name the subject.
    """
    text, name = str(prompt), str(subject)
    if "{}" in text or not name.strip():
        return text
    start = text.rfind(name)
    if start < 0:
        raise ValueError(
            f"the prompt {text!r} does not name the subject {name!r}; write {{}} where the "
            "subject goes"
        )
    return text[:start] + "{}" + text[start + len(name) :]


def first_text(value: Any) -> str | None:
    """The first text of a value that is one, or a list of texts, or a list of such lists."""
    while isinstance(value, list | tuple):
        if not value:
            return None
        value = value[0]
    return None if value is None else f"{value}"
