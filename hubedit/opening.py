"""The updates of a delta file: each is checked when the file is opened, and read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from hubedit.description import Description, read_description
from hubedit.errors import DeltaError
from hubedit.headers import Header, HeaderProblem
from hubedit.kind import Update
from hubedit.stored import StoredTensor
from hubedit.texts import MAX_TEXT, TextFile
from hubedit.updates import KINDS

TEXT_PART = "text"
"""The part of the file that holds a text file of the model's repository."""

Read = Callable[[int, int], bytes | memoryview]
Shapes = dict[str, tuple[str, tuple[int, ...]]]


class FileUpdates(Mapping[str, Update]):
    """The updates of an open file by stored name; one is in memory while it is used.

    `kinds` are by name, and `texts` the text files that the delta writes.

    Args:
        header: of the file.
        read: returns the bytes [begin, end) of the file.

    Raises:
        HeaderProblem: the file is not a delta; no update of it was read yet.
    """

    def __init__(self, header: Header, read: Read) -> None:
        self.description: Description = read_description(header.metadata)
        self._header, self._read = header, read
        targets = self.description.targets
        self._keys: dict[str, dict[str, str]] = {name: {} for name in targets}
        texts: dict[str, bytes] = {}
        for key, slot in header.tensors.items():
            name, _, part = key.rpartition("::")
            if part == TEXT_PART and name in self.description.files:
                if slot.dtype != "U8" or len(slot.shape) != 1 or slot.shape[0] > MAX_TEXT:
                    raise HeaderProblem(f"the text of {name!r} is not a list of U8, or too long")
                texts[name] = bytes(read(slot.begin, slot.end))
                continue
            if name not in self._keys:
                raise HeaderProblem(f"it stores {key!r}, which belongs to no update")
            self._keys[name][part] = key
        self.texts = [
            _file(path, before, after, texts)
            for path, (before, after) in self.description.files.items()
        ]

    @property
    def kinds(self) -> Mapping[str, str]:
        """The kind of each update."""
        return self.description.kinds

    def check(self) -> Shapes:
        """Read every update once; returns dtype and shape of each part as a writer has them.

        Raises:
            HeaderProblem: one is not usable.
        """
        shapes: Shapes = {}
        for name in self:
            try:
                parts = self[name].parts(0)
            except DeltaError as error:
                raise HeaderProblem(f"the update of {name!r} is not usable: {error}") from error
            shapes |= {f"{name}::{key}": (part.dtype, part.shape) for key, part in parts.items()}
        return shapes

    def __getitem__(self, name: str) -> Update:
        target, parts = self.description.targets[name], {}
        for part, key in self._keys[name].items():
            slot = self._header.tensors[key]
            data = np.frombuffer(self._read(slot.begin, slot.end), dtype=np.uint8)
            parts[part] = StoredTensor(slot.dtype, slot.shape, data)
        return KINDS[self.kinds[name]].from_parts(parts, target.dtype, target.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._keys))

    def __len__(self) -> int:
        return len(self._keys)


def _file(path: str, before: str | None, after: str, texts: Mapping[str, bytes]) -> TextFile:
    if path not in texts:
        raise HeaderProblem(f"it does not store the text of {path!r}")
    file = TextFile(path, before, texts[path])
    if file.after != after or not file.changes:
        raise HeaderProblem(f"the text of {path!r} is not the one that it describes")
    return file
