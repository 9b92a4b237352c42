"""How many bytes a delta file takes, known before there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubedit.description import Description, Target


def low_rank_nbytes(
    shape: Sequence[int],
    rank: int,
    *,
    name: str = "model.layers.0.mlp.down_proj.weight",
    dtype: str = "BF16",
    aliases: Mapping[str, Sequence[str]] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> int:
    """Bytes of the file of a delta that changes one tensor [m, n] by a low-rank update."""
    return low_rank_file_nbytes({name: (dtype, shape, rank)}, aliases=aliases, meta=meta)


def low_rank_file_nbytes(
    tensors: Mapping[str, tuple[str, Sequence[int], int]],
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> int:
    """Bytes of the file of a delta whose updates are all of low rank.

    Args:
        tensors: dtype, shape [m, n] and rank by stored name.
        aliases: see `Delta`.
        meta: see `Delta`; digests in it count by their length alone.
    """
    parts, data = {}, 0
    for name, (_, (rows, columns), rank) in tensors.items():
        parts[f"{name}::left"] = ("F32", (rows, rank))
        parts[f"{name}::right"] = ("F32", (rank, columns))
        data += 4 * rank * (rows + columns)
    targets = {
        name: Target(dtype, (rows, columns), "0" * 64, "0" * 64)
        for name, (dtype, (rows, columns), _) in sorted(tensors.items())
    }
    kinds = dict.fromkeys(targets, "low_rank")
    return len(Description(kinds, targets, aliases or {}, meta or {}).head(parts)) + data
