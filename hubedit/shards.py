"""The safetensors files of a model: read by ranges, hashed, and copied with tensors changed."""

from __future__ import annotations

from hubedit.checkpoint import Checkpoint, DirectorySource, Source, TensorInfo
from hubedit.copying import materialize
from hubedit.digests import sha256_file, sha256_files

__all__ = [
    "Checkpoint",
    "DirectorySource",
    "Source",
    "TensorInfo",
    "materialize",
    "sha256_file",
    "sha256_files",
]
