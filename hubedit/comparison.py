"""How two models differ: which edits each has that the other lacks, and tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hubedit.choosing import compare as described
from hubedit.delta import Delta
from hubedit.editions import Edition, Presence, edition_at
from hubedit.errors import HubEditError, VerificationError
from hubedit.hub import Hub
from hubedit.manifest import STACK_FILE, BaseRecord, StackEntry, Touched, touched_tensors
from hubedit.markdown import figure, percent
from hubedit.places import HubPlace, Place, base_record, checkpoint, model_file_names, open_place
from hubedit.shards import Checkpoint, TensorInfo
from hubedit.updates import LowRank, Replace, StoredTensor, Update

OpenHub = Callable[[], Hub]

CHEAP_SIDE = 256
"""The smaller side of what changed up to which a numerical rank is computed."""
CHEAP_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same on both sides.

    `only_in` is `a` or `b` where the other side lacks it. `relative_norm` is ‖b − a‖ / ‖a‖
    (Frobenius). Where `rank_of` is `updates`, `rank` is the sum of the ranks of the stored updates
    that one side has alone, as they are before they are rounded to the dtype; where it is `values`,
    it is that of the difference of the stored values, found numerically. `kinds` are those of the
    updates that one side has alone. Figures that were not computed are None.
    """

    name: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    dtype_a: str | None
    dtype_b: str | None
    elements_total: int
    only_in: str | None = None
    elements_changed: int | None = None
    relative_norm: float | None = None
    rank: int | None = None
    rank_of: str | None = None
    kinds: tuple[str, ...] = ()

    def cells(self) -> tuple[str, ...]:
        """For a table: name, shape, dtype, share changed, relative norm, rank and kind."""
        shapes = [
            " × ".join(map(str, shape)) if shape else "scalar"
            for shape in (self.shape_a, self.shape_b)
            if shape is not None
        ]
        dtypes = [dtype for dtype in (self.dtype_a, self.dtype_b) if dtype is not None]
        kinds = ", ".join(kind.replace("_", "-") for kind in self.kinds)
        changed = self.elements_changed
        return (
            self.name,
            " → ".join(dict.fromkeys(shapes)),
            " → ".join(dict.fromkeys(dtypes)),
            percent(None if changed is None else changed / max(self.elements_total, 1)),
            figure(self.relative_norm),
            "–" if self.rank is None else str(self.rank),
            f"only in {self.only_in.upper()}" if self.only_in else kinds,
        )


@dataclass(frozen=True)
class Comparison:
    """Two models side by side; `same_base` says whether both are edits of the same files."""

    a: str
    b: str
    base_a: str
    base_b: str
    same_base: bool
    common: tuple[StackEntry, ...]
    only_a: tuple[StackEntry, ...]
    only_b: tuple[StackEntry, ...]
    tensors: tuple[TensorDifference, ...]
    files: tuple[str, ...]
    """Small files that edits of one base left different."""
    tensors_total: int
    elements_total: int
    sides: tuple[Side, Side] = field(repr=False, compare=False)

    @property
    def elements_changed(self) -> int:
        """Elements that differ; all of a tensor that one side lacks or has in another shape."""
        return sum(
            item.elements_total if item.elements_changed is None else item.elements_changed
            for item in self.tensors
        )

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return {
            "a": {"title": self.a, "base": self.base_a, "only": _names(self.only_a)},
            "b": {"title": self.b, "base": self.base_b, "only": _names(self.only_b)},
            "same_base": self.same_base,
            "common_edits": _names(self.common),
            "tensors": [asdict(item) for item in self.tensors],
            "tensors_differ": len(self.tensors),
            "files": list(self.files),
            "tensors_total": self.tensors_total,
            "elements_changed": self.elements_changed,
            "elements_total": self.elements_total,
        }


def _names(entries: Iterable[StackEntry]) -> list[str]:
    return [entry.name for entry in entries]


@dataclass
class Side:
    """One of the two: a place, and the stack of edits that it holds, if it does."""

    place: Place
    edition: Edition | None
    hub: OpenHub

    @classmethod
    def open(cls, text: str, hub: OpenHub, base: str | None) -> Side:
        """Open `DIR` or `REPO[@REV]`; a plain model is not hashed."""
        place = open_place(text, hub)
        found = edition_at(place, hub, base) if STACK_FILE in place.files() else None
        return cls(place, found, hub)

    @property
    def entries(self) -> tuple[StackEntry, ...]:
        """Its edits, bottom first."""
        return self.edition.stack.edits if self.edition else ()

    @cached_property
    def model_type(self) -> str:
        """The family of the model by its config, or nothing where that does not say."""
        if self.edition:
            return self.edition.stack.base.model_type
        try:
            config = json.loads(self.place.read("config.json"))
        except (HubEditError, ValueError):
            return ""
        return str(config.get("model_type", "")) if isinstance(config, dict) else ""

    @property
    def base(self) -> Place:
        """Where the stored tensors lie that its edits change."""
        return self.edition.base if self.edition else self.place

    @property
    def base_title(self) -> str:
        """What its base is called."""
        return self.edition.stack.base.title if self.edition else self.place.title

    @cached_property
    def stored(self) -> Checkpoint:
        """The stored tensors of its base; reads headers alone."""
        return checkpoint(self.base)

    @cached_property
    def deltas(self) -> dict[str, Delta]:
        """The delta of each edit by its name, bottom first."""
        return {entry.name: self.edition.delta(entry) for entry in self.entries if self.edition}

    @cached_property
    def touched(self) -> Mapping[str, Touched]:
        """Digests in the base and on top, of each tensor that its edits touched."""
        return touched_tensors(self.edition.manifests) if self.edition else {}

    @cached_property
    def present(self) -> Mapping[str, TensorInfo | StoredTensor]:
        """The tensors that this side has: those of its base, but for those that came and went."""
        moved = self.edition.presence() if self.edition else Presence()
        stay = {n: info for n, info in self.stored.tensors.items() if n not in moved.dropped}
        return {**stay, **moved.added}

    def read(self, name: str, below: StoredTensor | None = None) -> StoredTensor:
        """One tensor that this side has, rebuilt from deltas and base, which may be given.

        Raises:
            VerificationError: it is rebuilt to other bits than recorded.
        """
        found = self.present[name]
        if isinstance(found, StoredTensor):
            return found
        tensor = below or self.stored.read(name)
        for delta in self.deltas.values():
            if name in delta:
                tensor = delta.apply(name, tensor)
        if name in self.touched and tensor.sha256() != self.touched[name][1]:
            raise VerificationError(
                self.place.title, [f"{name} is rebuilt to other bits than recorded"]
            )
        return tensor


def compare(a: str, b: str, hub: OpenHub, base: str | None = None) -> Comparison:
    """Compare two revisions or directories: edit repositories at any height, or plain models.

    Where both have the same base, manifests say which tensors differ, and only those are read.
    Otherwise headers are compared first, then the tensors that both have, one pair in memory.

    Args:
        a: a directory or `REPO[@REV]`.
        b: another; differences are from `a` to `b`.
        hub: opens the Hub when it is needed.
        base: a directory or repository to take the base of edits from.

    Raises:
        HubEditError: one of them cannot be read.
    """
    one, other = Side.open(a, hub, base), Side.open(b, hub, base)
    record = _common_base(one, other)
    same = record is not None or _same_place(one.place, other.place)
    if record is not None:
        total, elements = record.tensors, record.parameters
        found = tuple(_touched(one, other))
    elif same:
        total = len(one.stored.tensors)
        elements = _elements(one.stored)
        found = ()
    else:
        total = len({*one.stored.tensors, *other.stored.tensors})
        elements = max(_elements(one.stored), _elements(other.stored))
        found = tuple(_all(one, other))
    mine, theirs = ({_key(e): e for e in side.entries} for side in (one, other))
    return Comparison(
        a=one.place.title,
        b=other.place.title,
        base_a=one.base_title,
        base_b=other.base_title,
        same_base=same,
        common=tuple(entry for key, entry in mine.items() if key in theirs),
        only_a=tuple(entry for key, entry in mine.items() if key not in theirs),
        only_b=tuple(entry for key, entry in theirs.items() if key not in mine),
        tensors=found,
        files=() if record is None else tuple(_files(one, other, record)),
        tensors_total=total,
        elements_total=elements,
        sides=(one, other),
    )


def _key(entry: StackEntry) -> tuple[str, str]:
    return entry.delta, entry.result


def _elements(stored: Checkpoint) -> int:
    return sum(int(np.prod(info.shape, dtype=object)) for info in stored.tensors.values())


def _same_place(one: Place, other: Place) -> bool:
    if isinstance(one, HubPlace) and isinstance(other, HubPlace):
        return (one.repo, one.commit) == (other.repo, other.commit)
    return one.title == other.title


def _common_base(one: Side, other: Side) -> BaseRecord | None:
    """The base that both are made of, or None; a plain model is hashed only if sizes agree."""
    records = [side.edition.stack.base for side in (one, other) if side.edition]
    if len(records) == 2:
        return records[0] if records[0].digest == records[1].digest else None
    if not records:
        return None
    plain = other if one.edition else one
    names = model_file_names(plain.place)
    listed = plain.place.files()
    sizes = {name: listed[name].size for name in names}
    if sizes != {file.path: file.size for file in records[0].files}:
        return None
    return records[0] if base_record(plain.place).digest == records[0].digest else None


def _touched(one: Side, other: Side) -> Iterator[TensorDifference]:
    """The differences of two stacks on one base."""
    for name in sorted({*one.touched, *other.touched}):
        before = one.touched[name][1] if name in one.touched else other.touched[name][0]
        after = other.touched[name][1] if name in other.touched else one.touched[name][0]
        if before is None or after is None:
            if before != after:
                yield _one_sided(name, one.present.get(name), other.present.get(name))
        elif before != after:
            below = one.stored.read(name) if name in one.stored.tensors else None
            mine, theirs = one.read(name, below), other.read(name, below)
            yield _difference(name, mine, theirs, _own(name, one, other))


def _files(one: Side, other: Side, base: BaseRecord) -> Iterator[str]:
    """The small files that differ between two stacks on one base; a plain model has none."""
    as_base = {file.path: file.sha256 for file in base.files}
    mine, theirs = (
        side.edition.file_digests() if side.edition else as_base for side in (one, other)
    )
    for path in sorted({*mine, *theirs}):
        if mine.get(path) != theirs.get(path):
            yield path


def _own(name: str, one: Side, other: Side) -> list[Update]:
    """The updates of a tensor that one side has alone."""
    return [
        delta[name]
        for side, others in ((one, other), (other, one))
        for edit, delta in side.deltas.items()
        if name in delta and edit not in others.deltas
    ]


def _all(one: Side, other: Side) -> Iterator[TensorDifference]:
    """The differences of any two models."""
    here, there = one.present, other.present
    for name in sorted({*here, *there}):
        mine, theirs = here.get(name), there.get(name)
        if mine and theirs and (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape):
            if _vouched(name, one, other):
                continue
            before, after = one.read(name), other.read(name)
            if before != after:
                yield _difference(name, before, after, [])
            continue
        yield _one_sided(name, mine, theirs)


def _one_sided(
    name: str, mine: TensorInfo | StoredTensor | None, theirs: TensorInfo | StoredTensor | None
) -> TensorDifference:
    """A tensor that one side lacks, or has in another shape or dtype."""
    shape = mine.shape if mine else theirs.shape if theirs else ()
    return TensorDifference(
        name=name,
        shape_a=mine.shape if mine else None,
        shape_b=theirs.shape if theirs else None,
        dtype_a=mine.dtype if mine else None,
        dtype_b=theirs.dtype if theirs else None,
        elements_total=int(np.prod(shape, dtype=object)),
        only_in=None if mine and theirs else "a" if mine else "b",
    )


def _vouched(name: str, one: Side, other: Side) -> bool:
    """Whether the Hub already says that a tensor is the same: it lies in the same file."""
    if name in one.touched or name in other.touched:
        return False
    mine, theirs = one.stored.info(name), other.stored.info(name)
    first = one.base.files()[mine.file].sha256
    return first is not None and first == other.base.files()[theirs.file].sha256


def _difference(
    name: str, before: StoredTensor, after: StoredTensor, updates: Sequence[Update]
) -> TensorDifference:
    change = described(name, before, after, Replace(after))
    if updates and all(isinstance(update, LowRank) for update in updates):
        rank: int | None = min(sum(update.rank or 0 for update in updates), *before.shape)
        rank_of = "updates"
    else:
        rank = _numerical_rank(before, after)
        rank_of = "values"
    return TensorDifference(
        name=name,
        shape_a=before.shape,
        shape_b=after.shape,
        dtype_a=before.dtype,
        dtype_b=after.dtype,
        elements_total=before.size,
        elements_changed=change.elements_changed,
        relative_norm=change.relative_norm,
        rank=rank,
        rank_of=None if rank is None else rank_of,
        kinds=tuple(sorted({update.kind for update in updates})),
    )


def _numerical_rank(before: StoredTensor, after: StoredTensor) -> int | None:
    """Rank of the difference, of the rows and columns that changed alone; None if not cheap."""
    if len(before.shape) != 2 or before.dtype not in ("F32", "BF16", "F16"):
        return None
    changed = (before.bits() != after.bits()).reshape(before.shape)
    rows, columns = changed.any(axis=1), changed.any(axis=0)
    sides = int(rows.sum()), int(columns.sum())
    if min(sides) > CHEAP_SIDE or sides[0] * sides[1] > CHEAP_ELEMENTS:
        return None
    old, new = (tensor.to_float32()[rows][:, columns] for tensor in (before, after))
    moved = new.astype(np.float64) - old
    return int(np.linalg.matrix_rank(moved)) if np.isfinite(moved).all() else None
