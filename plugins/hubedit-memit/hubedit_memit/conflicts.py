"""Rows that say the same twice, rows that contradict each other, and rows that share a key."""

from __future__ import annotations

from collections.abc import Sequence

import hubedit


def without_repeats(rows: Sequence[hubedit.FactEdit]) -> list[hubedit.FactEdit]:
    """The rows in their order, each prompt about each subject once.

    Rows that name one relation of one subject in other prompts are all kept: they ask for one fact
    in several ways.

    Raises:
        RequestError: two rows ask for two targets of one subject and relation; says which.
    """
    first: dict[Name, int] = {}
    kept = []
    for number, row in enumerate(rows, start=1):
        repeated = asked(row) in first
        for name in names_of(row):
            earlier = first.setdefault(name, number)
            before = rows[earlier - 1]
            if before.target.strip() != row.target.strip():
                where = f"“{row.text}”" if name == asked(row) else f"{name[1]} of “{row.subject}”"
                raise hubedit.RequestError(
                    f"rows {earlier} and {number} contradict each other: {where} is to go on with "
                    f"“{before.target.strip()}” and with “{row.target.strip()}”; keep one of them"
                )
        if not repeated:
            kept.append(row)
    return kept


Name = tuple[str, str, str]
"""`prompt` or `relation`, its words, and the subject, spaces aside."""


def asked(row: hubedit.FactEdit) -> Name:
    """The prompt and the subject of a row."""
    return _name("prompt", row.prompt, row.subject)


def names_of(row: hubedit.FactEdit) -> list[Name]:
    """What tells the fact of a row from others: what is asked, and the relation if it names one."""
    named = [_name("relation", row.relation, row.subject)] if row.relation else []
    return [asked(row), *named]


def replaced(old: hubedit.FactEdit, rows: Sequence[hubedit.FactEdit]) -> bool:
    """Whether one of the rows asks what an old one asked, or gives its fact another target."""
    names = set(names_of(old))
    return any(
        asked(old) == asked(row)
        or (not names.isdisjoint(names_of(row)) and old.target.strip() != row.target.strip())
        for row in rows
    )


def _name(kind: str, words: str, subject: str) -> Name:
    return kind, " ".join(words.split()), " ".join(subject.split())


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
