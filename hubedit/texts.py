"""Small text files of a model's repository that an edit may replace or add."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from hubedit.errors import DeltaError, near_misses
from hubedit.headers import HeaderProblem, strict_json

TEXT_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""What an edit may write: text beside the weights that says nothing of how they are laid out."""

MAX_TEXT = 1 << 20
"""Bytes of one file."""


@dataclass(frozen=True)
class TextFile:
    """One file as an edit leaves it: `before` is the SHA-256 (hex) of what was there, if any was.

    Raises:
        DeltaError: no edit may write that path, or the content is too long, no UTF-8, or no JSON
            object where the name says so.
    """

    path: str
    before: str | None
    content: bytes

    def __post_init__(self) -> None:
        check_path(self.path)
        problem = _problem(self.path, self.content)
        if problem:
            raise DeltaError(problem)

    @property
    def after(self) -> str:
        """SHA-256 (hex) of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def changes(self) -> bool:
        """Whether the content is other than before."""
        return self.before != self.after


def check_path(path: str) -> None:
    """Refuse a path that no edit may write.

    Raises:
        DeltaError: names those it may.
    """
    if path not in TEXT_FILES:
        raise DeltaError(f"an edit cannot write the file {path!r}; {near_misses(path, TEXT_FILES)}")


def _problem(path: str, content: bytes) -> str | None:
    """Say why content cannot be written, or None."""
    if len(content) > MAX_TEXT:
        return f"{path} has {len(content)} bytes, and an edit writes up to {MAX_TEXT}"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return f"{path} is not text in UTF-8"
    if "\0" in text:
        return f"{path} is not text: it holds a zero byte"
    return _problem_of_json(path, content) if path.endswith(".json") else None


def _problem_of_json(path: str, content: bytes) -> str | None:
    try:
        value: Any = strict_json(content)
    except HeaderProblem as problem:
        return f"{path} cannot be read: {problem}"
    if not isinstance(value, dict):
        return f"{path} is not a JSON object"
    if "auto_map" in value:
        return f"{path} names code of its own (auto_map), which hubedit never runs"
    return None
