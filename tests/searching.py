"""Where texts stand in bytes, in which form, and what an embedded Hub keeps of a repository."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pygit2

COMMAS = bytes.maketrans(b"[]()", b",,,,")


class Trace(NamedTuple):
    """Where a text was found, by its number, and in which form."""

    place: str
    form: str
    number: int


class Views(NamedTuple):
    """Bytes as they are, in lower case, and without white space and with a comma at either end."""

    raw: bytes
    lower: bytes
    dense: bytes


def forms(text: str, tokenizer: Any) -> Iterator[tuple[str, str, bytes]]:
    """Every form of a text that is looked for: its name, the view it is looked for in, its bytes.

    Token ids stand between commas or brackets, which the view writes as commas.
    """
    clear = text.encode()
    yield "clear", "lower", clear.lower()
    yield "hex", "lower", clear.hex().encode()
    for shift in range(3):
        code = base64.b64encode(b"\0" * shift + clear)
        yield f"base64+{shift}", "raw", code[(0, 2, 3)[shift] : (len(clear) + shift) // 3 * 4]
    for front in ("", " "):
        ids = tokenizer(front + text, add_special_tokens=False)["input_ids"]
        if len(ids) < 2:
            continue
        yield "ids in text", "dense", b",%b," % b",".join(str(token).encode() for token in ids)
        for letter, name in (("i", "int32"), ("q", "int64")):
            yield name, "raw", struct.pack(f"<{len(ids)}{letter}", *ids)


def traces(contents: Mapping[str, bytes], texts: Iterable[str], tokenizer: Any) -> list[Trace]:
    """Look for texts, each by its number, in named bytes."""
    views = {
        place: Views(raw, raw.lower(), b",%b," % re.sub(rb"\s+", b"", raw).translate(COMMAS))
        for place, raw in contents.items()
    }
    return [
        Trace(place, form, number)
        for number, text in enumerate(texts)
        for form, view, needle in forms(text, tokenizer)
        for place, content in views.items()
        if needle in getattr(content, view)
    ]


def published(root: Path, repo: str) -> dict[str, bytes]:
    """All that an embedded Hub keeps of a model repository, whoever may see it.

    Args:
        root: of the Hub.
        repo: `owner/name`.

    Returns:
        Every git object in full (files and messages of all commits, those of pull requests too),
        every large file, and every other file beside them, such as discussions and settings.
    """
    place = root / "models" / f"{repo}.git"
    git = pygit2.Repository(str(place))
    kept = {str(oid): git.read(oid)[1] for oid in git.odb}
    for path in place.rglob("*"):
        if path.is_file() and "objects" not in path.relative_to(place).parts[:1]:
            kept[str(path.relative_to(place))] = path.read_bytes()
    for link in (place / "lfs").rglob("*"):
        if link.is_file():
            (content,) = (root / "lfs").rglob(link.name)
            kept[f"lfs {link.name}"] = content.read_bytes()
    return kept
