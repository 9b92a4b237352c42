"""Where the edits of a stack meet: the same tensor, like directions, the same subject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from hubedit.editions import Edition
from hubedit.manifest import Manifest
from hubedit.updates import LowRank, Update


@dataclass(frozen=True)
class Conflict:
    """Two edits that meet.

    `tensor` is one that both change and `cosine` that of their two changes there (Frobenius), if
    both are of low rank; `subjects` are those that both requests name.
    """

    lower: str
    upper: str
    tensor: str | None
    cosine: float | None
    subjects: tuple[str, ...]


def conflicts(edition: Edition) -> list[Conflict]:
    """Every pair of edits that change one tensor or speak of one subject, bottom first.

    Deltas alone are read, not the model.
    """
    entries, manifests = edition.stack.edits, edition.manifests
    deltas = [edition.delta(entry) for entry in entries]
    return [
        conflict
        for one, two in combinations(range(len(entries)), 2)
        for conflict in _between(
            (entries[one].name, manifests[one], deltas[one].updates),
            (entries[two].name, manifests[two], deltas[two].updates),
        )
    ]


_Edit = tuple[str, Manifest, Mapping[str, Update]]


def _between(lower: _Edit, upper: _Edit) -> Iterator[Conflict]:
    subjects = tuple(sorted(_subjects(lower[1]) & _subjects(upper[1])))
    shared = [name for name in lower[2] if name in upper[2]]
    for name in shared:
        cosine = _cosine(lower[2][name], upper[2][name])
        yield Conflict(lower[0], upper[0], name, cosine, subjects)
    if subjects and not shared:
        yield Conflict(lower[0], upper[0], None, None, subjects)


def _subjects(manifest: Manifest) -> set[str]:
    rows = manifest.request.rows or ()
    return {str(row["subject"]) for row in rows if row.get("subject")}


def _cosine(one: Update, two: Update) -> float | None:
    """⟨A, B⟩ / (‖A‖ ‖B‖) of two products, from their factors: tr((A_lᵀB_l)(B_r A_rᵀ))."""
    if not (isinstance(one, LowRank) and isinstance(two, LowRank)):
        return None
    lengths = np.sqrt(_inner(one, one) * _inner(two, two))
    return float(_inner(one, two) / lengths) if lengths > 0 else None


def _inner(one: LowRank, two: LowRank) -> float:
    left = _double(one.left).T @ _double(two.left)
    right = _double(one.right) @ _double(two.right).T
    return float((left * right).sum())


def _double(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
