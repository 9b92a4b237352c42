"""Unsigned integers packed without loss: their byte planes in one zstd frame of a known size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError, DeltaFormatError
from hubedit.stored import Raw, StoredTensor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 1 << 20
"""How many integers are put together at a time."""

MAX_WINDOW_LOG = 20
"""A reader's buffer is never larger than two to this power, whatever a frame asks for."""

_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 9,
    zstd.CompressionParameter.strategy: int(zstd.Strategy.btultra),
    zstd.CompressionParameter.search_log: 2,
    zstd.CompressionParameter.target_length: 64,
    zstd.CompressionParameter.window_log: 18,
    zstd.CompressionParameter.hash_log: 16,
    zstd.CompressionParameter.chain_log: 16,
}
"""Planes of differences are all entropy and few matches: the search is short, the parse careful."""


def pack(values: npt.NDArray[Any]) -> StoredTensor:
    """Little-endian unsigned integers [k] as a frame: U8 [n].

    The frame holds all lowest bytes, then all second bytes, and so on.
    """
    width = values.dtype.itemsize
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, width).T)
    frame = zstd.compress(planes.reshape(-1).data, options=_OPTIONS)
    data = np.frombuffer(frame, dtype=np.uint8)
    return StoredTensor("U8", data.shape, data)


def content_size(frame: StoredTensor) -> int:
    """Bytes that a frame says it unpacks to; nothing is unpacked.

    Raises:
        DeltaFormatError: it is no frame, or does not say.
    """
    if frame.dtype != "U8" or len(frame.shape) != 1:
        raise DeltaFormatError("its packed part is not a list of U8")
    try:
        info = zstd.get_frame_info(frame.data.data)
    except zstd.ZstdError as error:
        raise DeltaFormatError("its packed part is not a zstd frame") from error
    if info.decompressed_size is None or info.dictionary_id:
        raise DeltaFormatError("its packed part does not say its size, or needs a dictionary")
    return int(info.decompressed_size)


class Planes:
    """The integers that a frame holds, by a slice at a time."""

    def __init__(self, planes: Raw) -> None:
        self._planes = planes

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        """Some of them, as unsigned integers."""
        whole: Raw = np.ascontiguousarray(self._planes[:, part].T)
        return whole.reshape(-1).view(f"<u{self._planes.shape[0]}")

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
        """All of them in their order, `BLOCK` at a time, each with where it lies."""
        for begin in range(0, self._planes.shape[1], BLOCK):
            part = slice(begin, min(begin + BLOCK, self._planes.shape[1]))
            yield part, self[part]


def unpack(frame: StoredTensor, width: int, count: int) -> Planes:
    """The integers [count] of `width` bytes that a frame holds.

    Raises:
        DeltaError: it holds another number of them, or is damaged.
    """
    nbytes = width * count
    if content_size(frame) != nbytes:
        raise DeltaError(f"a packed part does not hold {count} integers of {width} bytes")
    reader = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    )
    try:
        content: Raw = np.frombuffer(reader.decompress(frame.data.data, nbytes + 1), dtype=np.uint8)
    except zstd.ZstdError as error:
        raise DeltaError("a packed part is damaged") from error
    if content.size != nbytes or not reader.eof or reader.unused_data:
        raise DeltaError("a packed part is not one whole frame")
    return Planes(content.reshape(width, count))
