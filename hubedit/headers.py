"""Reads and writes the header of a safetensors file; what is read is not trusted."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hubedit.stored import DTYPE_BITS, byte_count

MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format."""

MAX_COUNT = 2**63 - 1
_FIELDS = {"dtype", "shape", "data_offsets"}


class HeaderProblem(ValueError):
    """A header cannot be trusted; the text is a clause that says why."""


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies: bytes [begin, end) of the file, or of its data while it is parsed."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a header says: its tensors with offsets from the start of the file, and metadata.

    `content` is the JSON as it lies in the file, padding included; `size` is that of the file.
    """

    tensors: Mapping[str, Slot]
    metadata: Mapping[str, str]
    content: bytes
    size: int


def read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """Read and check the header of a file.

    Args:
        read: returns the bytes [begin, end) of the file; never asked for more than it has.
        size: bytes of the file.

    Raises:
        HeaderProblem: the file is not whole, or the header is not of the format.
    """
    first = read(0, min(size, 1 << 16))
    if len(first) < 8:
        raise HeaderProblem("it is shorter than the length of a header")
    length = int(struct.unpack("<Q", first[:8])[0])
    if length > MAX_HEADER:
        raise HeaderProblem(f"its header claims {length} bytes, and {MAX_HEADER} are allowed")
    if 8 + length > size:
        raise HeaderProblem(f"its header claims {length} bytes and the file has {size}")
    content = first[8 : 8 + length]
    if len(content) < length:
        content += read(8 + len(content), 8 + length)
    if len(content) != length:
        raise HeaderProblem("its header is cut off")
    return _parse(content, size)


def strict_json(text: bytes) -> Any:
    """Parse JSON in UTF-8; names that come twice, NaN and infinity are refused.

    Raises:
        HeaderProblem: it is not such JSON.
    """
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse_constant
        )
    except HeaderProblem:
        raise
    except (ValueError, RecursionError) as error:
        raise HeaderProblem(f"it is not JSON ({str(error) or 'nested too deep'})") from error


def canonical_json(value: Any) -> bytes:
    """JSON in UTF-8 with sorted keys and no spaces: one text for one value.

    Raises:
        HeaderProblem: a text in it is not valid Unicode.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise HeaderProblem("a text in it is not valid Unicode") from error


def data_order(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Names in the order of their data: widest dtype first, then by name."""
    return sorted(tensors, key=lambda name: (-DTYPE_BITS[tensors[name][0]], name))


def write_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """The first bytes of a file, up to its data: length, canonical JSON, spaces to 8 bytes.

    Args:
        tensors: dtype and shape by name; their data follows in `data_order`.
        metadata: texts by key.
    """
    described: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name in data_order(tensors):
        dtype, shape = tensors[name]
        end = begin + (byte_count(dtype, shape) or 0)
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    content = canonical_json(described)
    content += b" " * (-len(content) % 8)
    return struct.pack("<Q", len(content)) + content


def _parse(content: bytes, size: int) -> Header:
    described = strict_json(content) if content.startswith(b"{") else None
    if not isinstance(described, dict):
        raise HeaderProblem("its header is not a JSON object")
    metadata = described.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HeaderProblem("its metadata are not texts by name")
    start = 8 + len(content)
    slots = {name: _slot(name, value, start) for name, value in described.items()}
    reached = start
    for name, slot in sorted(slots.items(), key=lambda item: (item[1].begin, item[1].end)):
        if slot.begin != reached:
            raise HeaderProblem(f"the data of {name!r} do not follow those before")
        reached = slot.end
    if reached != size:
        raise HeaderProblem(
            f"it has {size} bytes and its tensors end at {reached}: it is cut off or has more"
        )
    return Header(slots, metadata, content, size)


def _slot(name: str, value: Any, start: int) -> Slot:
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise HeaderProblem(f"the entry of {name!r} is not dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderProblem(f"{name!r} has the unknown dtype {dtype!r}")
    if not is_shape(shape):
        raise HeaderProblem(f"{name!r} has no valid shape")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise HeaderProblem(f"{name!r} has no valid data_offsets")
    begin, end = offsets
    if end - begin != byte_count(dtype, shape):
        raise HeaderProblem(
            f"{name!r} is {dtype} {shape} and does not take the {end - begin} bytes it is given"
        )
    return Slot(dtype, tuple(shape), start + begin, start + end)


def is_shape(value: Any) -> bool:
    """Whether a JSON value is a list of integers from 0 on whose product is below 2⁶³."""
    if not _are_counts(value) or len(value) > 64:
        return False
    return bool(math.prod(max(side, 1) for side in value) <= MAX_COUNT)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(count) is int and 0 <= count <= MAX_COUNT for count in value
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderProblem("a name comes twice in its JSON")
    return found


def _refuse_constant(text: str) -> Any:
    raise HeaderProblem(f"{text} is not JSON")
