"""Seeded mutations of files that strangers wrote: bytes, JSON, and what JSON describes."""

import json
import random
import struct
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hubedit.packing import zstd

HOSTILE = (
    None, True, -1, 0, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, 1e308,
    float("nan"), float("inf"), "", "0" * 64, "Z" * 64, "../../etc/passwd", "/etc/passwd", "a::b",
    "\x00", "\ud800", "F32", "F4", "I128", "low_rank", "packed", "sparse_packed", "replace", "drop",
    "pickle", "é" * 300, [], {}, [[]], [-1], [0], [2**62, 2**62], [1] * 70, {"a": {"b": {}}},
)  # fmt: skip
"""Values that take the place of others."""

DEEP = "[" * 50_000 + "]" * 50_000
BOMB = zstd.compress(bytes(1 << 24))
SPECIAL = (b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\xff" * 8, b"\x00" * 8, b"\x80\x7f")
"""Infinity, NaN and the like, as they lie in a file."""


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Some bytes other than they were."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    """A part left out, doubled or added."""
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    what = rng.randrange(4)
    if what == 0:
        return content[:begin]
    if what == 1:
        return content[:begin] + content[end:]
    if what == 2:
        return content[:end] + content[begin:]
    return content + rng.randbytes(rng.randrange(1, 64))


def special(rng: random.Random, content: bytes) -> bytes:
    """A value that floats and lengths dread."""
    value = rng.choice(SPECIAL)
    begin = rng.randrange(max(len(content) - len(value), 1))
    return content[:begin] + value + content[begin + len(value) :]


def value_changed(rng: random.Random, value: Any) -> Any:
    """JSON in which one place holds something else, is gone, is doubled or has another name."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        keys = (
            part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        )
        for key in keys:
            places.append((part, key))
            walk(part[key])

    walk(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        part, key = rng.choice(places)
        if key not in part if isinstance(part, dict) else key >= len(part):
            continue
        what = rng.randrange(6)
        if what == 0:
            del part[key]
        elif what == 1 and isinstance(part, dict):
            names = ("x", "../x", "", "__metadata__", "a::left", f"{key}::")
            part[rng.choice(names)] = deepcopy(part[key])
        elif what == 2 and isinstance(part, list):
            part.append(deepcopy(part[key]))
        elif what == 3 and type(part[key]) is int:
            part[key] += rng.choice((-1, 1, 8, 2**32, -(2**40), 2**63))
        elif what == 4:
            other, name = rng.choice(places)
            if name in other if isinstance(other, dict) else name < len(other):
                part[key] = deepcopy(other[name])
        else:
            part[key] = rng.choice(HOSTILE)
    return value


def text_changed(rng: random.Random, text: str) -> str:
    """JSON text that parsers disagree about: names twice, depth, numbers without end."""
    what = rng.randrange(5)
    spot = rng.choice([place for place, sign in enumerate(text) if sign in "{:,[" and place] or [0])
    if what == 0:
        return text[:1] + '"format":1,' + text[1:]
    if what == 1:
        return text[: spot + 1] + DEEP + text[spot + 1 :]
    if what == 2:
        return text[: spot + 1] + "9" * rng.choice((30, 400, 5000)) + text[spot + 1 :]
    if what == 3:
        return text[: spot + 1] + rng.choice(("NaN", "-Infinity", "1e999", "\x00", "//", "\ufeff"))
    return text[:spot] + text[spot:].replace('"', "'", 1)


def json_mutated(rng: random.Random, content: bytes) -> bytes:
    """A file of JSON with one thing wrong, or several."""
    what = rng.randrange(8)
    if what == 0:
        return flipped(rng, content)
    if what == 1:
        return cut(rng, content)
    if what == 2:
        return text_changed(rng, content.decode()).encode("utf-8", "surrogatepass")
    try:
        text = json.dumps(value_changed(rng, json.loads(content)), sort_keys=True)
    except (RecursionError, ValueError):
        return content[:-1]
    return text.encode("utf-8", "surrogatepass")


def file_mutated(rng: random.Random, content: bytes) -> bytes:
    """A delta file with one thing wrong, or several; its header is canonical again by half."""
    what = rng.randrange(10)
    if what < 4:
        bytewise: tuple[Callable[[random.Random, bytes], bytes], ...] = (flipped, cut, special)
        return rng.choice(bytewise)(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    if what == 4:
        claimed = rng.choice((0, 1, length - 1, length + 8, 10**8 + 1, 2**63, 2**64 - 1))
        return struct.pack("<Q", claimed) + content[8:]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if what == 5:
        key = rng.choice([key for key in header if key.endswith(("::steps", "::gaps"))])
        return with_part(header, data, key, rng.choice((BOMB, b"", data[:40], zstd.compress(b""))))
    described = json.loads(header["__metadata__"]["hubedit"])
    if what == 6:
        text = text_changed(rng, header["__metadata__"]["hubedit"])
    else:
        described = value_changed(rng, described)
        text = json.dumps(described, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        if what == 9:
            header = value_changed(rng, header)
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["hubedit"] = text
    return framed(header, data)


def with_part(header: dict[str, Any], data: bytes, key: str, part: bytes) -> bytes:
    """The file with other bytes for one part, and offsets that fit again."""
    begin, end = header[key]["data_offsets"]
    more = len(part) - (end - begin)
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= end and name != key:
            entry["data_offsets"] = [offset + more for offset in entry["data_offsets"]]
    header[key] |= {"data_offsets": [begin, begin + len(part)], "shape": [len(part)]}
    return framed(header, data[:begin] + part + data[end:])


def framed(header: dict[str, Any], data: bytes) -> bytes:
    """The file with a header in canonical form."""
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    head = text.encode("utf-8", "surrogatepass")
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data
