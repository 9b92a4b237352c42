"""Text of others made safe to show: Markdown to HTML without raw HTML, diffs to coloured lines."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from markdown_it import MarkdownIt


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False})
    return parser.enable(["table", "strikethrough"])


def markdown(text: str) -> str:
    """Return HTML; raw HTML in `text` is shown as text, script links are not links."""
    return str(_parser().render(text))


class DiffLine(NamedTuple):
    """A line of a diff and what it is: file, hunk, added, removed or same."""

    kind: str
    text: str


_STARTS = (
    ("diff --git", "file"),
    ("@@", "hunk"),
    ("+++", "meta"),
    ("---", "meta"),
    ("+", "added"),
    ("-", "removed"),
)


def diff_lines(text: str, limit: int = 5000) -> list[DiffLine]:
    """Return at most `limit` lines of a unified diff."""
    lines = text.split("\n", limit)[:limit]
    return [
        DiffLine(next((kind for start, kind in _STARTS if line.startswith(start)), "same"), line)
        for line in lines
    ]
