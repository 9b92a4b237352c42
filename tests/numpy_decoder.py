"""A reader of delta files that follows docs/delta-format.md alone: struct, json and NumPy."""

import hashlib
import json
import struct

import numpy as np

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
            indices_dtype = {"U32": "<u4", "U64": "<u8"}[header[f"{name}::indices"]["dtype"]]
            indices = np.frombuffer(part(name, "indices"), indices_dtype)
            width = WIDTHS[len(part(name, "values")) // len(indices)]
            flat = np.frombuffer(base[name], width).copy()
            flat[indices] = np.frombuffer(part(name, "values"), width)
            rebuilt[name] = flat.tobytes()
        elif target["kind"] in ("rows", "columns"):
            indices = np.frombuffer(part(name, "indices"), "<u4")
            shape = list(target["shape"])
            axis = 0 if target["kind"] == "rows" else len(shape) - 1
            width = WIDTHS[len(base[name]) // int(np.prod(shape))]
            whole = np.frombuffer(base[name], width).reshape(shape).copy()
            shape[axis] = len(indices)
            lines = np.frombuffer(part(name, "values"), width).reshape(shape)
            whole[indices if axis == 0 else (..., indices)] = lines
            rebuilt[name] = whole.tobytes()
        elif target["kind"] == "low_rank":
            rows, columns = target["shape"]
            left = np.frombuffer(part(name, "left"), "<f4").reshape(rows, -1)
            right = np.frombuffer(part(name, "right"), "<f4").reshape(-1, columns)
            rebuilt[name] = add(target["dtype"], base[name], left, right)
        else:
            raise ValueError(f"unknown kind {target['kind']}")
    return rebuilt


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
