"""What a method keeps in an edit's folder for the edits that follow, and reads of those before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubedit.chat import through_template
from hubedit.editions import Edition
from hubedit.errors import ManifestError
from hubedit.manifest import STACK_FILE, StackEntry
from hubedit.method import Earlier, Method
from hubedit.requests import rows_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

KEPT_FILE = "kept.safetensors"
"""In an edit's folder; listed by its SHA-256 in `hubedit.json` like every file."""


def files_of(kept: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    """The file that holds what a method kept, by its name in the edit's folder; none of nothing.

    The same tensors give the same bytes.
    """
    from safetensors.torch import save

    if not kept:
        return {}
    return {KEPT_FILE: save({name: kept[name] for name in sorted(kept)})}


def carried(edition: Edition, entry: StackEntry) -> dict[str, bytes]:
    """The file that an edit's method kept, as it lies in a revision; none if it kept nothing.

    Raises:
        ManifestError: it is not the file that the stack lists.
    """
    path = f"{entry.folder}/{KEPT_FILE}"
    if path not in edition.place.files():
        return {}
    content = edition.place.read(path)
    if hashlib.sha256(content).hexdigest() != edition.stack.files.get(path):
        raise ManifestError(
            f"{path} of {edition.place.title} is not the one that {STACK_FILE} lists; run "
            "`hubedit verify` for all that differs"
        )
    return {KEPT_FILE: content}


def earlier(
    edition: Edition, method: type[Method[Any, Any]], tokenizer: PreTrainedTokenizerFast
) -> Sequence[Earlier]:
    """The edits of a stack that a method made, bottom first.

    Raises:
        ManifestError: what one kept is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    found = []
    for entry, manifest in zip(edition.stack.edits, edition.manifests, strict=True):
        if manifest.method.name != method.name:
            continue
        rows = None
        if manifest.request.rows is not None:
            rows = rows_of(method.row_type(), manifest.request.rows)
            if manifest.request.chat is not None:
                rows = through_template(rows, tokenizer)
        kept: dict[str, torch.Tensor] = {}
        for content in carried(edition, entry).values():
            try:
                kept = load(content)
            except (SafetensorError, ValueError, KeyError) as error:
                raise ManifestError(f"{entry.folder}/{KEPT_FILE} is damaged: {error}") from error
        found.append(Earlier(entry.name, manifest.config, rows, manifest.record, kept))
    return found
