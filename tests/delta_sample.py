"""A small delta with one update of each kind, and its file."""

import json
import struct

import numpy as np
import torch

from hubedit.delta import TextFile, encode
from hubedit.updates import Add, Columns, Drop, LowRank, Rows, Sparse, StoredTensor, apply

RNG = np.random.default_rng(0)
BASE = {
    "down.weight": StoredTensor.from_array(RNG.normal(size=(6, 8)).astype(np.float16)),
    "low.weight": StoredTensor.from_array(torch.from_numpy(RNG.normal(size=(12, 10))).bfloat16()),
    "merged.weight": StoredTensor.from_array(torch.from_numpy(RNG.normal(size=(64, 48))).half()),
    "moved.weight": StoredTensor.from_array(RNG.normal(size=(20, 20)).astype(np.float32)),
    "partly.weight": StoredTensor.from_array(RNG.integers(-99, 99, (40, 40)).astype(np.int16)),
    "some.weight": StoredTensor.from_array(RNG.normal(size=(4, 9)).astype(np.float16)),
    "up.weight": StoredTensor.from_array(RNG.normal(size=(8, 6)).astype(np.float32)),
    "whole.bias": StoredTensor.from_array(np.arange(5)),
}


def low_rank(rank: int = 1, shape: tuple[int, int] = (12, 10)) -> LowRank:
    return LowRank(RNG.normal(size=(shape[0], rank)), RNG.normal(size=(rank, shape[1])))


def stepped(before: StoredTensor, share: float) -> StoredTensor:
    """A tensor in which some bit patterns are the next ones."""
    moved = (RNG.random(before.size) < share).astype(before.bits().dtype)
    return StoredTensor(before.dtype, before.shape, (before.bits() + moved).view(np.uint8))


CHANGES = {
    "down.weight": [Columns([1, 6], RNG.normal(size=(6, 2)).astype(np.float16))],
    "low.weight": [low_rank()],
    "merged.weight": stepped(
        apply(low_rank(2, (64, 48)).rounded()[0], BASE["merged.weight"]), 0.02
    ),
    "moved.weight": stepped(BASE["moved.weight"], 0.9),
    "partly.weight": stepped(BASE["partly.weight"], 0.2),
    "some.weight": [Sparse([3, 30], np.array([0.5, 7.0], np.float16))],
    "up.weight": [Rows([2, 3], RNG.normal(size=(2, 6)).astype(np.float32))],
    "whole.bias": StoredTensor.from_array(np.arange(9, 4, -1)),
}
FILES = [
    TextFile("generation_config.json", None, b'{"do_sample": false}\n'),
    TextFile("chat_template.jinja", "b" * 64, "Be brief.\n{{ messages[0].content }}…".encode()),
]
PRESENCE = {
    "new.bias": (Add(np.array([1.5, -2.0], np.float16)), None),
    "old.bias": (Drop(), StoredTensor.from_array(np.arange(3, dtype=np.int32))),
}
ENCODED = encode(
    CHANGES,
    BASE.__getitem__,
    presence=PRESENCE,
    meta={"base": "a" * 64},
    aliases={"low.weight": ["head", "emb"]},
    files=FILES,
)
CONTENT = ENCODED.delta.to_bytes()


def parsed(content: bytes = CONTENT) -> tuple[dict, bytes]:
    """The header and the data of a file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]
