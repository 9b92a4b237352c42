"""The layer that a stored trace names, for models that no publication edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hubedit.artifacts import ABOUT, ArtifactStore, Held
from hubedit.layouts import Layout, layout_for
from hubedit.manifest import BaseRecord

KIND = "causal-trace"
FILE = "trace.json"


@dataclass(frozen=True)
class StoredTrace:
    """What the store holds of a model's facts: where they are read, told by so many prompts."""

    address: str
    layer: int
    layers: tuple[int, ...]
    prompts: int
    found: Mapping[str, Any]


def read_trace(held: Held) -> StoredTrace | None:
    """A finished trace; None if its file says none."""
    found = held.facts(FILE)
    if not held.finished or not isinstance(found.get("layer"), int):
        return None
    return StoredTrace(
        held.address, found["layer"], tuple(found["edit_layers"]), found["prompts"], found
    )


def stored_trace(base: str, store: ArtifactStore | None = None) -> StoredTrace | None:
    """The trace of a base, without any edit, with the most prompts, or None if there is none.

    Args:
        base: the base's digest.
        store: where to look; by default the local store.
    """
    traces = [
        trace
        for held in (store or ArtifactStore()).held(KIND)
        if held.facts(ABOUT).get("digest") == base
        and not held.facts(ABOUT).get("edits")
        and (trace := read_trace(held)) is not None
    ]
    return max(traces, key=lambda trace: (trace.prompts, trace.address), default=None)


def layout_of(base: BaseRecord) -> Layout:
    """The layout of a base's family, with the layer that a stored trace names.

    Raises:
        UnsupportedModelError: the family is not known.
    """
    return with_trace(layout_for(base.model_type), base.layers, lambda: base.digest)


def with_trace(layout: Layout, depth: int | None, base: Callable[[], str]) -> Layout:
    """The layout with the layer that a stored trace names, where no publication names one.

    Args:
        layout: of the family.
        depth: number of blocks of the stack that reads texts.
        base: tells the base's digest; is asked only where there are traces.
    """
    reader = layout.encoder or layout
    if depth is None or depth in reader.edit_layers:
        return layout
    if not any(ArtifactStore().held(KIND)):
        return layout
    trace = stored_trace(base())
    if trace is None or not trace.layer < depth:
        return layout
    found = replace(reader, edit_layers={**reader.edit_layers, depth: trace.layer})
    return found if layout.encoder is None else replace(layout, encoder=found)


__all__ = ["FILE", "KIND", "StoredTrace", "layout_of", "read_trace", "stored_trace", "with_trace"]
