"""What the report computes itself: intervals, spectra, heat maps, words that differ."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hubedit.heatmap import LAYERED, OUTSIDE, STEPS, Grid
from hubedit.markdown import figure, shorten
from hubedit.matrices import MapRecord

HIGHEST_RANK = 512
"""Of updates of higher rank no spectrum is computed."""
WORDS_COMPARED = 2000
"""Texts of more words are shown without marks."""
LABEL = 24
"""Characters of the label of a row or column, at most."""

Mark = Literal["same", "gone", "new"]


@dataclass(frozen=True)
class Spectrum:
    """Singular values of an update, largest first.

    `effective_rank` is the exponential of the entropy of their shares (Roy and Vetterli 2007),
    `top_share` the part of the squared Frobenius norm that the first one has.
    """

    values: tuple[float, ...]
    effective_rank: float
    top_share: float


def spectrum(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> Spectrum | None:
    """Singular values of left · right, by QR of both factors; None above `HIGHEST_RANK` or of zero.

    Args:
        left: float32 [m, r].
        right: float32 [r, n].
    """
    if left.shape[1] > HIGHEST_RANK:
        return None
    tall, wide = (
        np.asarray(np.linalg.qr(factor.astype(np.float64), mode="r")) for factor in (left, right.T)
    )
    inner = tall @ wide.T
    values = np.linalg.svd(inner, compute_uv=False)
    total = float(values.sum())
    if not total or not math.isfinite(total):
        return None
    shares = values[values > 0] / total
    entropy = -float((shares * np.log(shares)).sum())
    return Spectrum(
        values=tuple(float(value) for value in values),
        effective_rank=math.exp(entropy),
        top_share=float(values[0] ** 2 / np.square(values).sum()),
    )


def word_differences(
    before: str, after: str
) -> tuple[list[tuple[Mark, str]], list[tuple[Mark, str]]]:
    """Two texts in pieces, each marked as common to both, gone from `before` or new in `after`."""
    old, new = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (before, after))
    if max(len(old), len(new)) > WORDS_COMPARED:
        return [("same", before)], [("same", after)]
    left: list[tuple[Mark, str]] = []
    right: list[tuple[Mark, str]] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            left.append(("same", "".join(old[a:b])))
            right.append(("same", "".join(new[c:d])))
            continue
        if a < b:
            left.append(("gone", "".join(old[a:b])))
        if c < d:
            right.append(("new", "".join(new[c:d])))
    return left, right


@dataclass(frozen=True)
class HeatCell:
    """One module of one layer: how strongly it changed, as a step and in words."""

    step: str
    """`none`, `unknown`, or the number of the half decade, from 0."""
    said: str


@dataclass(frozen=True)
class Heat:
    """The heat map as tables: modules by layers, and what belongs to no layer."""

    layers: tuple[int, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    outside: tuple[tuple[str, HeatCell], ...]


def heat(grid: Grid) -> Heat:
    """A grid of relative norms as cells of a table."""
    return Heat(
        layers=tuple(range(grid.layers)),
        rows=tuple(
            (module, tuple(_cell(value) for value in row))
            for module, row in zip(LAYERED, grid.cells, strict=True)
        ),
        outside=tuple(
            (module, _cell(value)) for module, value in zip(OUTSIDE, grid.outside, strict=True)
        ),
    )


def legend() -> Iterator[tuple[str, str]]:
    """The steps of the heat map, and what each means."""
    for number, step in enumerate(STEPS):
        yield str(number), f"to {figure(step)}"
    yield str(len(STEPS)), "above"


def _cell(value: float | None) -> HeatCell:
    if value is None:
        return HeatCell("none", "untouched")
    if math.isnan(value):
        return HeatCell("unknown", "changed, no norm recorded")
    return HeatCell(str(sum(value > step for step in STEPS)), f"relative norm {figure(value)}")


@dataclass(frozen=True)
class MatrixCell:
    """One number of a matrix: its place, how dark it is drawn (0 to 1), and in words."""

    row: int
    column: int
    share: float
    below: bool
    said: str


@dataclass(frozen=True)
class MatrixView:
    """A small matrix that a method shows."""

    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[MatrixCell, ...]
    low: float
    high: float


def matrix_view(record: MapRecord) -> MatrixView:
    """A matrix as cells: as dark as a number is far from 0, those below 0 told apart."""
    matrix = record.matrix
    every = [value for row in matrix for value in row]
    top = max(map(abs, every)) or 1.0
    return MatrixView(
        caption=record.caption,
        rows=tuple(shorten(label, LABEL) for label in record.rows),
        columns=tuple(shorten(label, LABEL) for label in record.columns),
        cells=tuple(
            MatrixCell(
                row=down,
                column=across,
                share=round(abs(value) / top, 3),
                below=value < 0,
                said=f"{record.rows[down]}, {record.columns[across]}: {value:.3g}",
            )
            for down, row in enumerate(matrix)
            for across, value in enumerate(row)
        ),
        low=min(every),
        high=max(every),
    )


def bars(values: Sequence[float], most: int = 48) -> tuple[float, ...]:
    """Heights in percent of the largest, of the first `most` values."""
    top = max(values, default=0.0) or 1.0
    return tuple(round(100 * value / top, 2) for value in values[:most])
