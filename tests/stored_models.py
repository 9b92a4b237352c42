"""A small model's files: in one safetensors file, and in shards as the Hub's cache has them."""

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def tensors() -> dict[str, torch.Tensor]:
    """The same tensors every time, one of them empty."""
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(6, 5),
        "b.weight": torch.randn(7, 3).bfloat16(),
        "c.ids": torch.arange(4),
        "d.empty": torch.zeros(0, 3),
        "e.weight": torch.randn(3).half(),
    }


def write_single(folder: Path) -> Path:
    """A model in one file."""
    model = folder / "single"
    model.mkdir()
    save_file(tensors(), model / "model.safetensors", metadata={"format": "pt", "by": "hand"})
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    return model


def write_sharded(folder: Path) -> Path:
    """The same model in two shards, as the Hub's cache has it: links to files elsewhere."""
    blobs, model = folder / "blobs", folder / "sharded"
    blobs.mkdir()
    model.mkdir()
    every = tensors()
    parts = {FIRST: ["a.weight", "c.ids"], SECOND: ["b.weight", "d.empty", "e.weight"]}
    for shard, names in parts.items():
        save_file({name: every[name] for name in names}, blobs / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, names in parts.items() for name in names}
    (blobs / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (blobs / "config.json").write_text("{}")
    for path in blobs.iterdir():
        (model / path.name).symlink_to(Path("..", "blobs", path.name))
    return model


def header_of(path: Path) -> bytes:
    """The first bytes of a safetensors file, up to its data."""
    content = path.read_bytes()
    return content[: 8 + struct.unpack("<Q", content[:8])[0]]
