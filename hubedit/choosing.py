"""Chooses the kind of update that a change is stored as, and says why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hubedit.errors import DeltaError, NonFiniteUpdateError
from hubedit.floats import NARROW, to_double, widen
from hubedit.recovery import recover
from hubedit.stored import StoredTensor
from hubedit.updates import (
    KINDS,
    Add,
    Drop,
    LowRank,
    LowRankPacked,
    Packed,
    Replace,
    SparsePacked,
    Update,
    add_product,
    apply,
)

Change = Sequence[Update] | StoredTensor
"""What a method did to one tensor: the updates it recorded, or the tensor it left behind."""

MAX_GRID_ERROR = 1e-5
MAX_COMPONENT_ERROR = 1e-4
MOST_SPARSE = 0.75
LEAST_DENSE = 0.25
"""Shares of changed elements between which both packed kinds are tried."""

_SAMPLE, _STRETCHES = 1 << 19, 16
_MARGIN = 1.3
"""By how much an estimate may be above what is smallest, and the kind still be tried."""

WORTH_PACKING = 256
"""Bytes; a change that takes no more is stored plainly."""
_PLAIN = {
    "F64": "<f8", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8",
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """How the change of one tensor is stored, and why.

    `kind` is that of the update, or `none` where nothing changed; `nbytes` is what it stores.
    """

    name: str
    kind: str
    nbytes: int
    reason: str


@dataclass(frozen=True)
class TensorChange:
    """One tensor before and after.

    Digests are `StoredTensor.sha256`, None where there is no such tensor. `relative_norm` is
    ‖after − before‖ / ‖before‖ (Frobenius, in float64), or None where it is no finite number.
    `nbytes` is what the update stores.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256_before: str | None
    sha256_after: str | None
    kind: str
    rank: int | None
    elements_changed: int
    elements_total: int
    relative_norm: float | None
    nbytes: int


def choose(change: Change, before: StoredTensor) -> tuple[Update | None, StoredTensor, str]:
    """The update to store, the tensor it makes, and the reason; no update where nothing changed.

    Updates that are all of low rank stay so if the grid holds them well and they are smaller than
    the tensor. Everything else becomes the smallest exact kind.

    Raises:
        DeltaError: the change does not fit the tensor.
        NonFiniteUpdateError: NaN or infinity would be written.
    """
    if isinstance(change, StoredTensor):
        return _smallest(before, Replace(change).apply(before), "changed in place")
    low_rank = [update for update in change if isinstance(update, LowRank)]
    if not change or len(low_rank) < len(change):
        why = "updates of several kinds" if low_rank else "values replaced"
        return _smallest(before, _carried_out(change, before), why)
    refused = _too_high(low_rank, before)
    if refused is None:
        update, error = LowRank.concatenate(low_rank).rounded()
        if error.overall <= MAX_GRID_ERROR and error.component <= MAX_COMPONENT_ERROR:
            after = apply(update, before)
            if after == before:
                return None, before, f"nothing changes once rounded to {before.dtype}"
            reason = f"rank {update.rank} of {before.shape[0]} × {before.shape[1]}"
            return update, after, reason
        refused = (
            f"the factors' grid would move the update by {error.overall:.1g} "
            f"(one component by {error.component:.1g})"
        )
    return _smallest(before, _carried_out(change, before), refused)


def compare(name: str, before: StoredTensor, after: StoredTensor, update: Update) -> TensorChange:
    """Describe one changed tensor."""
    return TensorChange(
        name=name,
        dtype=before.dtype,
        shape=before.shape,
        sha256_before=before.sha256(),
        sha256_after=after.sha256(),
        kind=update.kind,
        rank=update.rank,
        elements_changed=int(np.count_nonzero(_changed(before, after))),
        elements_total=before.size,
        relative_norm=_relative_norm(before, after),
        nbytes=update.nbytes(before.size),
    )


def presence(name: str, update: Add | Drop, before: StoredTensor | None) -> TensorChange:
    """Describe a tensor that comes or goes; all its elements count as changed.

    Raises:
        DeltaError: it is there already, or was not there.
    """
    if isinstance(update, Add):
        if before is not None:
            raise DeltaError(f"{name}: the model already has a tensor of that name")
        tensor = update.values
    elif before is None:
        raise DeltaError(f"{name}: the model has no tensor of that name that could be dropped")
    else:
        tensor = before
    return TensorChange(
        name=name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        sha256_before=before.sha256() if before is not None else None,
        sha256_after=tensor.sha256() if before is None else None,
        kind=update.kind,
        rank=None,
        elements_changed=tensor.size,
        elements_total=tensor.size,
        relative_norm=None,
        nbytes=update.nbytes(tensor.size),
    )


def _too_high(updates: Sequence[LowRank], before: StoredTensor) -> str | None:
    """Say why factors are not worth storing, or None; sizes are of all updates together."""
    rank = sum(update.rank for update in updates)
    rows, columns = updates[0].shape
    if rank > min(rows, columns):
        return f"the ranks of {len(updates)} updates add up to {rank}, above the smaller side"
    nbytes = 4 * rank * (rows + columns)
    if nbytes >= before.nbytes:
        return f"factors of rank {rank} take {nbytes} bytes, and the tensor {before.nbytes}"
    return None


def _carried_out(updates: Sequence[Update], before: StoredTensor) -> StoredTensor:
    """The tensor after updates in their order, rounded to the dtype at the end alone."""
    if not any(isinstance(update, LowRank) for update in updates):
        for update in updates:
            before = apply(update.stored_as(before.dtype), before)
        return before
    working = before.rounded_to("F32")
    for update in updates:
        if isinstance(update, LowRank):
            working = add_product(working, update.left, update.right)
        else:
            working = apply(update.stored_as("F32"), working)
    return Replace(working.rounded_to(before.dtype)).apply(before)


def _smallest(
    before: StoredTensor, after: StoredTensor, why: str
) -> tuple[Update | None, StoredTensor, str]:
    """The smallest kind that stores a tensor exactly; the first that was tried of equal ones."""
    changed = _changed(before, after)
    count = int(np.count_nonzero(changed))
    if not count:
        return None, before, f"{why}, and no bit of it is other than before"
    costs = {
        kind: cost for kind in KINDS.values() if (cost := kind.cost(before, changed)) is not None
    }
    plain = min(costs, key=lambda kind: costs[kind])
    tried = {kind.kind: cost for kind, cost in costs.items()}
    best: Update | None = None
    estimates: dict[str, int] = {}
    for update in _packed(before, after, changed, min(costs.values()), estimates):
        tried[update.kind] = update.nbytes(before.size)
        if tried[update.kind] < min(
            nbytes for kind, nbytes in tried.items() if kind != update.kind
        ):
            best = update
    best = best or plain.between(before, after, changed)
    said = {kind: f"{kind} {size:,}" for kind, size in tried.items()}
    said = {kind: f"{kind} about {size:,}" for kind, size in estimates.items()} | said
    sizes = {**estimates, **tried}
    others = ", ".join(said[kind] for kind in sorted(sizes, key=sizes.__getitem__))
    units = "elements" if before.width is not None else "bytes"
    share = f"{count:,} of {changed.size:,} {units} changed"
    return best, after, f"{why}; {share}; bytes as {others}"


def _packed(
    before: StoredTensor,
    after: StoredTensor,
    changed: npt.NDArray[np.bool_],
    nbytes: int,
    estimates: dict[str, int],
) -> Iterator[Update]:
    """The update as each kind that must be made to know its size, while it could be smallest.

    `estimates` receives about how many bytes others would take.
    """
    if nbytes <= WORTH_PACKING:
        return
    share = np.count_nonzero(changed) / changed.size
    kinds: list[type[Packed | SparsePacked]] = []
    if share <= MOST_SPARSE:
        kinds.append(SparsePacked)
    if share >= LEAST_DENSE:
        kinds.append(Packed)
    about = {kind: _sampled(kind, before, after, changed) for kind in kinds}
    estimates |= {kind.kind: nbytes for kind, nbytes in about.items()}
    kind = min(kinds, key=lambda kind: about[kind])
    product = recover(before, after, min(nbytes, about[kind]))
    if product is not None:
        corrected = _corrected(product, before, after)
        if corrected is not None:
            yield corrected
            nbytes = min(nbytes, corrected.nbytes(before.size))
    if about[kind] <= nbytes * _MARGIN:
        yield kind.between(before, after, changed)


def _corrected(product: LowRank, before: StoredTensor, after: StoredTensor) -> Update | None:
    """A product with what it misses put right, or None where it cannot be added."""
    try:
        near = apply(product, before)
    except NonFiniteUpdateError:
        return None
    missed = _changed(near, after)
    if not missed.any():
        return product
    return LowRankPacked(product, SparsePacked.between(near, after, missed))


def _sampled(
    kind: type[Packed | SparsePacked],
    before: StoredTensor,
    after: StoredTensor,
    changed: npt.NDArray[np.bool_],
) -> int:
    """Bytes that a packed kind takes: of large tensors about, from some stretches of them."""
    old, new, stretch = before.units(), after.units(), _SAMPLE // _STRETCHES
    if changed.size > _SAMPLE:
        begins = np.linspace(0, changed.size - stretch, _STRETCHES).astype(np.int64)
        some = (begins[:, None] + np.arange(stretch)).reshape(-1)
        old, new, changed = old[some], new[some], changed[some]
        if not changed.any():
            return 0
    one, other = (
        StoredTensor(f"U{8 * bits.itemsize}", bits.shape, bits.view(np.uint8))
        for bits in (old, new)
    )
    nbytes = kind.between(one, other, changed).nbytes(one.size)
    return int(nbytes * before.units().size / one.size)


def _changed(before: StoredTensor, after: StoredTensor) -> npt.NDArray[np.bool_]:
    """Which elements differ in their bits, flat; which bytes, where elements are smaller."""
    whole = before.width is not None
    differ: npt.NDArray[np.bool_] = (
        before.bits() != after.bits() if whole else before.data != after.data
    )
    return differ


def _relative_norm(before: StoredTensor, after: StoredTensor) -> float | None:
    """‖after − before‖ / ‖before‖ to six digits, or None where it is no finite number."""
    moved = whole = 0.0
    for begin in range(0, before.size, 1 << 20):
        part = slice(begin, begin + (1 << 20))
        old, new = _values(before, part), _values(after, part)
        if old is None or new is None:
            return None
        with np.errstate(all="ignore"):
            moved += float(np.square(new - old).sum())
            whole += float(np.square(old).sum())
    if not whole or not math.isfinite(moved) or not math.isfinite(whole):
        return None
    return float(f"{math.sqrt(moved / whole):.6g}")


def _values(tensor: StoredTensor, part: slice) -> npt.NDArray[np.float64] | None:
    """Some elements as float64, or None where the dtype holds no plain real numbers."""
    if tensor.dtype in NARROW:
        return to_double(widen(tensor.bits()[part], tensor.dtype))
    plain = _PLAIN.get(tensor.dtype)
    return None if plain is None else tensor.data.view(plain)[part].astype(np.float64)
