"""Rows that say the same twice, rows that contradict each other, and rows that share a key."""

from __future__ import annotations

from collections.abc import Sequence

import hubedit


def without_repeats(rows: Sequence[hubedit.FactEdit]) -> list[hubedit.FactEdit]:
    """The rows in their order, each prompt about each subject once.

    Raises:
        RequestError: two rows ask for two targets of one subject and relation; says which.
    """
    first: dict[tuple[str, str], int] = {}
    kept = []
    for number, row in enumerate(rows, start=1):
        earlier = first.setdefault(fact_of(row), number)
        if earlier == number:
            kept.append(row)
        elif rows[earlier - 1].target.strip() != row.target.strip():
            raise hubedit.RequestError(
                f"rows {earlier} and {number} contradict each other: “{row.text}” is to go on "
                f"with “{rows[earlier - 1].target.strip()}” and with “{row.target.strip()}”; keep "
                "one of them"
            )
    return kept


def fact_of(row: hubedit.FactEdit) -> tuple[str, str]:
    """What tells one fact from another: the prompt and the subject, spaces aside."""
    return " ".join(row.prompt.split()), " ".join(row.subject.split())


def grouped(
    rows: Sequence[hubedit.FactEdit], together: bool, first: int = 0
) -> dict[str, list[int]]:
    """The rows that have one key, by a name of it: the subject if `together`, else the number.

    Args:
        first: the number of the first row; the lists count from 0 all the same.
    """
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        name = " ".join(row.subject.split()) if together else str(first + index)
        groups.setdefault(name, []).append(index)
    return groups
