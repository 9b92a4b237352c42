"""The JSON that describes a delta: which tensors it changes, from what, into what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubedit.errors import DeltaError
from hubedit.headers import HeaderProblem, canonical_json, is_shape, strict_json, write_header
from hubedit.stored import DTYPE_BITS
from hubedit.updates import KINDS, Add, Drop

FORMAT = 1
KEY = "hubedit"
"""The one metadata key of a delta file."""

_NEWER = "a newer hubedit may know it: pip install -U hubedit"
_DIGEST = re.compile("[0-9a-f]{64}")
_TARGET_FIELDS = {"after", "before", "dtype", "kind", "shape"}
_TOP_FIELDS = {"aliases", "format", "meta", "tensors"}
_FILE_FIELDS = {"after", "before"}


@dataclass(frozen=True)
class Target:
    """The tensor an update is for: dtype, shape, and `StoredTensor.sha256` before and after.

    `before` is None of a tensor that comes, `after` of one that goes.
    """

    dtype: str
    shape: tuple[int, ...]
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Description:
    """What a delta file says of itself.

    `kinds` and `targets` are by tensor name, `files` by path: digests (hex) before, if there was
    such a file, and after.
    """

    kinds: Mapping[str, str]
    targets: Mapping[str, Target]
    aliases: Mapping[str, Sequence[str]]
    meta: Mapping[str, Any]
    files: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)

    def head(self, parts: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
        """The first bytes of the file, up to its data.

        Args:
            parts: dtype and shape of each tensor in the file.

        Raises:
            DeltaError: a name or text cannot be stored.
        """
        tensors = {
            name: {
                "after": target.after,
                "before": target.before,
                "dtype": target.dtype,
                "kind": self.kinds[name],
                "shape": list(target.shape),
            }
            for name, target in self.targets.items()
        }
        aliases = {name: sorted(others) for name, others in self.aliases.items()}
        described: dict[str, Any] = {
            "aliases": aliases,
            "format": FORMAT,
            "meta": dict(self.meta),
            "tensors": tensors,
        }
        if self.files:
            described["files"] = {
                path: {"after": after, "before": before}
                for path, (before, after) in self.files.items()
            }
        try:
            return write_header(parts, {KEY: canonical_json(described).decode("utf-8")})
        except HeaderProblem as error:
            raise DeltaError(f"the delta cannot be stored: {error}") from error


def read_description(metadata: Mapping[str, str]) -> Description:
    """Read what a file's metadata say of the delta.

    Raises:
        HeaderProblem: they are not those of a delta, or of a format this version does not know.
    """
    if set(metadata) != {KEY}:
        raise HeaderProblem(f"its metadata are not the one key {KEY!r}")
    try:
        described = strict_json(metadata[KEY].encode("utf-8"))
    except UnicodeEncodeError as error:
        raise HeaderProblem("its description is not valid Unicode") from error
    if not isinstance(described, dict) or type(described.get("format")) is not int:
        raise HeaderProblem("its description has no format")
    if described["format"] != FORMAT:
        raise HeaderProblem(
            f"it has format {described['format']} and this hubedit reads format {FORMAT}; {_NEWER}"
        )
    if set(described) - {"files"} != _TOP_FIELDS:
        raise HeaderProblem(f"its description holds {sorted(described)}, not {sorted(_TOP_FIELDS)}")
    aliases, meta, tensors = described["aliases"], described["meta"], described["tensors"]
    files = described.get("files", {})
    if not _are_names(aliases):
        raise HeaderProblem("its aliases are not lists of names")
    if not isinstance(meta, dict) or not is_plain(meta):
        raise HeaderProblem("its meta is not an object without fractions")
    if not isinstance(files, dict) or (not files and "files" in described):
        raise HeaderProblem("its files are not an object with some")
    if not isinstance(tensors, dict) or not (tensors or files):
        raise HeaderProblem("it describes no tensors")
    targets = {name: _target(name, value) for name, value in tensors.items()}
    kinds = {name: _kind(name, value["kind"]) for name, value in tensors.items()}
    digests = {path: _file(path, value) for path, value in files.items()}
    return Description(kinds, targets, aliases, meta, digests)


def is_plain(value: Any) -> bool:
    """Whether a value has one JSON text in every language: no fractions."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_plain(part) for part in value)
    return value is None or isinstance(value, (str, int))


def _are_names(aliases: Any) -> bool:
    return isinstance(aliases, dict) and all(
        isinstance(others, list) and all(isinstance(other, str) for other in others)
        for others in aliases.values()
    )


def _target(name: str, value: Any) -> Target:
    if not isinstance(value, dict) or set(value) != _TARGET_FIELDS:
        raise HeaderProblem(f"the entry of {name!r} is not {sorted(_TARGET_FIELDS)}")
    dtype, shape, before, after = (value[key] for key in ("dtype", "shape", "before", "after"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS or not is_shape(shape):
        raise HeaderProblem(f"the entry of {name!r} has no valid dtype and shape")
    kind = value["kind"]
    comes, goes = kind == Add.kind and before is None, kind == Drop.kind and after is None
    lacks = {Add.kind: not comes, Drop.kind: not goes}.get(kind if isinstance(kind, str) else "")
    if lacks or not ((comes or _is_digest(before)) and (goes or _is_digest(after))):
        raise HeaderProblem(f"the entry of {name!r} has no valid digests")
    return Target(dtype, tuple(shape), before, after)


def _file(path: str, value: Any) -> tuple[str | None, str]:
    if not isinstance(value, dict) or set(value) != _FILE_FIELDS:
        raise HeaderProblem(f"the entry of the file {path!r} is not {sorted(_FILE_FIELDS)}")
    before, after = value["before"], value["after"]
    if not (before is None or _is_digest(before)) or not _is_digest(after):
        raise HeaderProblem(f"the entry of the file {path!r} has no valid digests")
    return before, after


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _kind(name: str, kind: Any) -> str:
    if not isinstance(kind, str) or kind not in KINDS:
        raise HeaderProblem(
            f"{name!r} is changed by the kind {kind!r} and this hubedit knows {', '.join(KINDS)}; "
            f"{_NEWER}"
        )
    return kind
