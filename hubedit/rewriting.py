"""Shards and indexes written anew, where tensors come or go."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from hubedit.checkpoint import CHUNK, Checkpoint
from hubedit.errors import DeltaError
from hubedit.headers import data_order, read_header, strict_json, write_header
from hubedit.stored import StoredTensor

Value = StoredTensor | Callable[[], StoredTensor]


def homes(checkpoint: Checkpoint, added: Iterable[str], dropped: Iterable[str]) -> dict[str, str]:
    """The file of each tensor once some have come, into the last file, or gone.

    Raises:
        DeltaError: an added tensor is there, a dropped one is not, or none is left.
    """
    files = {name: info.file for name, info in checkpoint.tensors.items()}
    for name in dropped:
        if name not in files:
            raise DeltaError(f"the model has no tensor {name!r} that could be dropped")
        del files[name]
    if not files:
        raise DeltaError("every tensor would be dropped, and a model needs some")
    last = max(files.values())
    for name in added:
        if name in files:
            raise DeltaError(f"the model already has a tensor {name!r}, so it cannot be added")
        files[name] = last
    return files


def rewrite_shard(
    source: Path,
    target: Path,
    checkpoint: Checkpoint,
    names: Collection[str],
    values: Mapping[str, Value],
) -> None:
    """Write a shard with other tensors than before: a canonical header, and the bytes of each.

    Args:
        source: the shard as it is; its metadata stay.
        target: does not exist.
        checkpoint: the model that `source` is a shard of.
        names: the tensors of the new shard.
        values: new tensors by name; the others are copied.
    """
    with source.open("rb") as old:

        def read(begin: int, end: int) -> bytes:
            old.seek(begin)
            return old.read(end - begin)

        header = read_header(read, source.stat().st_size)
        known = {name: (info.dtype, info.shape) for name, info in checkpoint.tensors.items()}
        fresh = {name: value for name, value in values.items() if isinstance(value, StoredTensor)}
        shapes = {
            name: (fresh[name].dtype, fresh[name].shape) if name in fresh else known[name]
            for name in names
        }
        with target.open("xb") as new:
            new.write(write_header(shapes, header.metadata))
            for name in data_order(shapes):
                if name not in values:
                    slot = header.tensors[name]
                    for chunk in _chunks(read, slot.begin, slot.end):
                        new.write(chunk)
                    continue
                value = values[name]
                tensor = value if isinstance(value, StoredTensor) else value()
                if (tensor.dtype, tensor.shape) != shapes[name]:
                    raise DeltaError(f"{name!r} is no longer {shapes[name][0]}")
                new.write(tensor.data.data)


def rewrite_index(
    source: Path,
    files: Mapping[str, str],
    checkpoint: Checkpoint,
    added: Mapping[str, StoredTensor],
) -> bytes:
    """The index of shards with other tensors; what else it says stays.

    Args:
        source: the index as it is.
        files: the file of each tensor.
        checkpoint: the model that the index is of.
        added: the tensors that came.
    """
    infos = checkpoint.tensors
    nbytes = sum(
        added[name].nbytes if name in added else infos[name].end - infos[name].begin
        for name in files
    )
    index = strict_json(source.read_bytes())
    index["weight_map"] = dict(sorted(files.items()))
    if "total_size" in (index.get("metadata") or {}):
        index["metadata"]["total_size"] = nbytes
    return (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def _chunks(read: Callable[[int, int], bytes], begin: int, end: int) -> Iterator[bytes]:
    for start in range(begin, end, CHUNK):
        yield read(start, min(start + CHUNK, end))
