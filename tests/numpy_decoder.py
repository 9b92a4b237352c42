"""A reader of delta files that follows docs/delta-format.md alone: struct, json, NumPy, zstd."""

import hashlib
import json
import struct

import numpy as np

try:
    from compression import zstd
except ImportError:
    from backports import zstd

WIDTHS = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def decode(content: bytes, base: dict[str, bytes]) -> dict[str, bytes | None]:
    """The raw bytes of every changed tensor, from the file and the raw bytes of the base's.

    None stands for a tensor that is no longer there.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["hubedit"])
    if description["format"] != 1:
        raise ValueError("not format 1")

    def part(name: str, which: str) -> bytes:
        begin, end = header[f"{name}::{which}"]["data_offsets"]
        return content[8 + length + begin : 8 + length + end]

    rebuilt = {}
    for name, target in description["tensors"].items():
        if target["kind"] == "replace" or target["kind"] == "add":
            rebuilt[name] = part(name, "values")
        elif target["kind"] == "drop":
            rebuilt[name] = None
        elif target["kind"] == "sparse":
            indices = integers(part(name, "indices"), header[f"{name}::indices"])
            width = WIDTHS[len(part(name, "values")) // len(indices)]
            flat = np.frombuffer(base[name], width).copy()
            flat[indices] = np.frombuffer(part(name, "values"), width)
            rebuilt[name] = flat.tobytes()
        elif target["kind"] in ("rows", "columns"):
            indices = integers(part(name, "indices"), header[f"{name}::indices"])
            shape = list(target["shape"])
            axis = 0 if target["kind"] == "rows" else len(shape) - 1
            width = WIDTHS[len(base[name]) // int(np.prod(shape))]
            whole = np.frombuffer(base[name], width).reshape(shape).copy()
            shape[axis] = len(indices)
            lines = np.frombuffer(part(name, "values"), width).reshape(shape)
            whole[indices if axis == 0 else (..., indices)] = lines
            rebuilt[name] = whole.tobytes()
        elif target["kind"] == "packed":
            rebuilt[name] = step(target, base[name], part(name, "steps"))
        elif target["kind"] == "sparse_packed":
            rebuilt[name] = step(target, base[name], part(name, "steps"), part(name, "gaps"))
        elif target["kind"] in ("low_rank", "low_rank_packed"):
            rows, columns = target["shape"]
            left = np.frombuffer(part(name, "left"), "<f4").reshape(rows, -1)
            right = np.frombuffer(part(name, "right"), "<f4").reshape(-1, columns)
            rebuilt[name] = add(target["dtype"], base[name], left, right)
            if target["kind"] == "low_rank_packed":
                steps, gaps = part(name, "steps"), part(name, "gaps")
                rebuilt[name] = step(target, rebuilt[name], steps, gaps)
        else:
            raise ValueError(f"unknown kind {target['kind']}")
    return rebuilt


def integers(content: bytes, entry: dict) -> np.ndarray:
    """Unsigned integers, such as indices."""
    return np.frombuffer(
        content, {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}[entry["dtype"]]
    )


def step(target: dict, base: bytes, steps: bytes, gaps: bytes | None = None) -> bytes:
    """The steps of `packed`, or those of `sparse_packed`."""
    size = int(np.prod(target["shape"], dtype=object))
    width = max(len(base) // size, 1)
    units = len(base) // width
    old = np.frombuffer(base, WIDTHS[width]).astype(object)
    places = np.arange(units)
    if gaps is not None:
        apart = planes(gaps, 4 if units <= 2**32 else 8)
        places = np.cumsum([gap + 1 for gap in apart]) - 1
    new = old.copy()
    for place, folded in zip(places, planes(steps, width), strict=True):
        move = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
        new[place] = (old[place] + move) % 2 ** (8 * width)
    return new.astype(WIDTHS[width]).tobytes()


def planes(frame: bytes, width: int) -> list[int]:
    """The unsigned integers of a frame."""
    content = np.frombuffer(zstd.decompress(frame), "u1").reshape(width, -1)
    return [int.from_bytes(bytes(column), "little") for column in content.T]


def decode_files(content: bytes) -> dict[str, bytes]:
    """The content of every file that the delta writes."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["hubedit"]).get("files", {})
    found = {}
    for path, digests in described.items():
        begin, end = header[f"{path}::text"]["data_offsets"]
        found[path] = content[8 + length + begin : 8 + length + end]
        assert hashlib.sha256(found[path]).hexdigest() == digests["after"]
    return found


def add(dtype: str, base: bytes, left: np.ndarray, right: np.ndarray) -> bytes:
    """The addition of `low_rank`."""
    old = np.frombuffer(base, "<u4" if dtype == "F32" else "<u2").reshape(len(left), -1)
    if dtype == "F32":
        weights = old.view("<f4").astype(np.float64)
    elif dtype == "BF16":
        weights = (old.astype("<u4") << 16).view("<f4").astype(np.float64)
    else:
        weights = old.view("<f2").astype(np.float64)
    product = left.astype(np.float64) @ right.astype(np.float64)
    single = (weights + product).astype("<f4")
    if dtype == "F32":
        new = single.view("<u4")
    elif dtype == "BF16":
        bits = single.view("<u4").astype(np.uint64)
        new = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    else:
        new = single.astype("<f2").view("<u2")
    return np.where(product == 0, old, new).tobytes()
