"""The stored tensors of a model, read by byte ranges: which lies where, and its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hubedit.errors import UnsupportedModelError, near_misses
from hubedit.headers import HeaderProblem, read_header, strict_json
from hubedit.stored import StoredTensor, digest_prefix

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHUNK = 1 << 24
"""Bytes that are read and hashed at a time."""


class Source(Protocol):
    """Where files come from: a directory, a Hub repository, …"""

    def files(self) -> Mapping[str, int]:
        """Sizes in bytes, by name."""

    def read(self, file: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of a file."""


class DirectorySource:
    """The files of a local directory, without those in folders below."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def files(self) -> Mapping[str, int]:
        """Sizes in bytes, by name; links are followed.

        Raises:
            UnsupportedModelError: there is no such directory.
        """
        try:
            found = sorted(path for path in self.path.iterdir() if path.is_file())
        except OSError as error:
            raise UnsupportedModelError(
                f"{self.path} is no directory that can be read ({error.strerror}); give one with "
                "a model in it"
            ) from error
        return {path.name: path.stat().st_size for path in found}

    def read(self, file: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of a file."""
        with (self.path / file).open("rb") as stream:
            stream.seek(begin)
            return stream.read(end - begin)


@dataclass(frozen=True)
class TensorInfo:
    """A stored tensor: bytes [begin, end) of a file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Checkpoint:
    """The stored tensors of a model, in one file `model.safetensors` or in the shards of its index.

    `tensors` are by name, sorted; `files` the names of the safetensors files and of the index.
    """

    def __init__(self, source: Source, files: tuple[str, ...], tensors: Mapping[str, TensorInfo]):
        self.source, self.files, self.tensors = source, files, tensors

    @classmethod
    def open(cls, source: Source | Path | str) -> Checkpoint:
        """Read the headers, and nothing else.

        Raises:
            UnsupportedModelError: there are no safetensors weights, or they are damaged.
        """
        source = DirectorySource(source) if isinstance(source, (Path, str)) else source
        sizes = source.files()
        if SINGLE not in sizes and INDEX not in sizes:
            raise UnsupportedModelError(_no_weights(sizes))
        # transformers, too, takes the single file where both are there
        index = None if SINGLE in sizes else _weight_map(source, sizes[INDEX])
        shards = sorted(set(index.values())) if index is not None else [SINGLE]
        missing = [shard for shard in shards if shard not in sizes]
        if missing:
            raise UnsupportedModelError(
                f"{INDEX} lists {missing[0]!r}, which is not there; download the model again"
            )
        found: dict[str, TensorInfo] = {}
        for shard in shards:
            for name, info in _tensors(source, shard, sizes[shard]).items():
                if name in found:
                    raise UnsupportedModelError(
                        f"both {found[name].file!r} and {shard!r} hold a tensor {name!r}; download "
                        "the model again"
                    )
                found[name] = info
        for name, shard in (index or {}).items():
            if name not in found or found[name].file != shard:
                raise UnsupportedModelError(
                    f"{INDEX} says that {shard!r} holds {name!r}, and it does not; download the "
                    "model again"
                )
        files = (INDEX, *shards) if index is not None else (SINGLE,)
        return cls(source, files, dict(sorted(found.items())))

    def info(self, name: str) -> TensorInfo:
        """Where a tensor lies.

        Raises:
            UnsupportedModelError: there is none of that name.
        """
        if name not in self.tensors:
            raise UnsupportedModelError(
                f"the files hold no tensor named {name!r}; {near_misses(name, self.tensors)}"
            )
        return self.tensors[name]

    def read(self, name: str) -> StoredTensor:
        """Read one tensor.

        Raises:
            UnsupportedModelError: there is none of that name, or its file was cut off.
        """
        info = self.info(name)
        data, filled = np.empty(info.end - info.begin, dtype=np.uint8), 0
        for chunk in self._chunks(name, info):
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
            filled += len(chunk)
        return StoredTensor(info.dtype, info.shape, data)

    def hash(
        self, names: Iterable[str] | None = None, workers: int | None = None
    ) -> dict[str, str]:
        """`StoredTensor.sha256` of tensors, all by default, without holding one in memory.

        Args:
            names: which.
            workers: how many are read at a time; by default one for each core.
        """
        wanted = list(self.tensors if names is None else names)
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            return dict(zip(wanted, pool.map(self._digest, wanted), strict=True))

    def _digest(self, name: str) -> str:
        info = self.info(name)
        digest = hashlib.sha256(digest_prefix(info.dtype, info.shape))
        for chunk in self._chunks(name, info):
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self, name: str, info: TensorInfo) -> Iterator[bytes]:
        for begin in range(info.begin, info.end, CHUNK):
            end = min(begin + CHUNK, info.end)
            chunk = self.source.read(info.file, begin, end)
            if len(chunk) != end - begin:
                raise UnsupportedModelError(f"{info.file} ends within {name!r}; download it again")
            yield chunk


def _tensors(source: Source, shard: str, size: int) -> dict[str, TensorInfo]:
    try:
        header = read_header(lambda begin, end: source.read(shard, begin, end), size)
    except HeaderProblem as problem:
        raise UnsupportedModelError(
            f"{shard} is damaged, or no safetensors file: {problem}; download it again"
        ) from problem
    return {
        name: TensorInfo(shard, slot.dtype, slot.shape, slot.begin, slot.end)
        for name, slot in header.tensors.items()
    }


def _weight_map(source: Source, size: int) -> dict[str, str]:
    """The file of each tensor, as the index says."""
    try:
        value = strict_json(source.read(INDEX, 0, size))
    except HeaderProblem as problem:
        raise UnsupportedModelError(f"{INDEX} is damaged: {problem}") from problem
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise UnsupportedModelError(f"{INDEX} has no weight_map; download it again")
    return found


def _no_weights(files: Iterable[str]) -> str:
    pickled = sorted(name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if pickled:
        return (
            f"the model has its weights in {pickled[0]} alone, a pickle, which can run code when "
            "it is read; take a revision with safetensors, or convert it with `save_pretrained` of "
            "transformers"
        )
    return f"there is neither {SINGLE} nor {INDEX}; give a directory or repository with a model"
