"""The headers of safetensors files: which tensors a stored file holds, how many of each kind."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hubedit_localhub.history import Entry
from hubedit_localhub.objects import Objects

MAX_HEADER = 25_000_000


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a safetensors file, or None if it has none that makes sense."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                return None
            found = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def counted(objects: Objects, entries: Iterable[Entry]) -> dict[str, Any] | None:
    """Return the parameters of a model by dtype and in all, or None if it has no weight files.

    Counted are the files that transformers loads: `model.safetensors`, or `model-….safetensors`.
    """
    counts: Counter[str] = Counter()
    for entry in entries:
        named = entry.path.startswith("model") and entry.path.endswith(".safetensors")
        if not named or entry.pointer is None:
            continue
        for name, tensor in (read_header(objects.path(entry.pointer.oid)) or {}).items():
            if name == "__metadata__":
                continue
            try:
                counts[str(tensor["dtype"])] += math.prod(map(int, tensor["shape"]))
            except (KeyError, TypeError, ValueError):
                return None
    return {"parameters": dict(counts), "total": counts.total()} if counts else None
