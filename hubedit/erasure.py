"""Proof that an item was in an undisclosed request, for who has the item and the edit's key."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubedit.disclosure import canonical, key_file, keyed_hash, read_key
from hubedit.editions import Edition
from hubedit.errors import RequestError
from hubedit.gathering import Named, gathered
from hubedit.hub import Hub
from hubedit.manifest import Manifest
from hubedit.requests import ROW_TYPES


@dataclass(frozen=True)
class Proof:
    """One item: its number among those given, its part, its keyed hash, whether it is listed."""

    item: int
    part: str
    hash: str
    found: bool


@dataclass(frozen=True)
class Proofs:
    """The proofs of all items against one edit, whose request lists `listed` rows."""

    edit: str
    result: str
    key: Path
    items: tuple[Proof, ...]
    listed: int

    @property
    def proved(self) -> bool:
        """Whether every item was in the request."""
        return all(item.found for item in self.items)


def prove(
    edition: Edition,
    items: Named,
    *,
    edit: str | None = None,
    key: Path | None = None,
    hub: Callable[[], Hub] = Hub,
) -> Proofs:
    """Check that items were in the request of an undisclosed edit.

    The hash covers all fields of a row, so an item is given as the request had it.

    Args:
        edition: the stack that holds the edit.
        items: where they are, as of a request: a file or dataset, or one for each part.
        edit: the edit's name or the beginning of it; by default the only undisclosed one.
        key: the edit's key file; by default the one that this machine kept.
        hub: opens the Hub when the items are a dataset.

    Raises:
        RequestError: there is no such edit, no key, or the items cannot be read; quotes no item.
    """
    manifest = _chosen(edition.manifests, edit)
    path = key or key_file(manifest.edit, manifest.result)
    if key is None and not path.is_file():
        raise RequestError(
            f"this machine has no key of {manifest.edit} ({path} does not exist); give the key "
            "file that was kept where the edit was made with --key"
        )
    secret = read_key(path)
    kind = ROW_TYPES.get(manifest.request.type)
    if kind is None:
        raise RequestError(f"rows of type {manifest.request.type} are not known to this hubedit")
    rows = gathered(kind, items, hub)
    made = []
    for number, row in enumerate(rows, start=1):
        code = keyed_hash(secret, canonical(row))
        found = any(hmac.compare_digest(code, known) for known in manifest.request.hashes)
        made.append(Proof(number, row.part_name, code, found))
    listed = len(manifest.request.hashes)
    return Proofs(manifest.edit, manifest.result, path, tuple(made), listed)


def _chosen(manifests: Sequence[Manifest], edit: str | None) -> Manifest:
    """The edit that is meant: the one so named, or the only one with an undisclosed request."""
    hidden = [one for one in manifests if not one.request.disclosed]
    names = ", ".join(one.edit for one in hidden) or "none"
    fitting = [one for one in hidden if edit is None or one.edit.startswith(edit)]
    if len(fitting) == 1:
        return fitting[0]
    if not hidden:
        raise RequestError(
            "no edit here has an undisclosed request, so there is nothing to prove; `hubedit show` "
            "prints the requests"
        )
    asked = "say which edit" if edit is None else f"{edit!r} names {len(fitting)} of the edits"
    raise RequestError(f"{asked}; undisclosed requests are those of {names} (--edit NAME)")
