"""Numbers that a method shows on the review page: a small matrix as text and as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from hubedit.errors import PluginError
from hubedit.heatmap import BLOCKS, UNTOUCHED
from hubedit.manifest import Manifest
from hubedit.markdown import shorten, visible
from hubedit.matrices import MAP_SIDE, MapRecord

_INK = "#333333"
_DIGITS = 3
_LABEL = 24
"""Characters of a label, at most."""


def map_record(
    name: str,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    caption: str,
) -> MapRecord:
    """Check a matrix and round it to three digits, as the manifest keeps it.

    Args:
        name: lower case, digits and hyphens; the picture is `figures/NAME.png`.
        values: a row of numbers for each of `rows`, a number for each of `columns`.
        rows: what stands at the left, from the top.
        columns: what stands below, from the left.
        caption: what the numbers are, in a sentence.

    Raises:
        PluginError: it is empty or too large, or a number is not finite.
    """
    lines = [" ".join(f"{float(value):.{_DIGITS}g}" for value in row) for row in values]
    try:
        return MapRecord(
            name=name,
            caption=caption,
            rows=tuple(map(str, rows)),
            columns=tuple(map(str, columns)),
            values=tuple(lines),
        )
    except ValueError as error:
        raise PluginError(
            f"the method's figure {name!r} is no matrix of finite numbers of at most {MAP_SIDE} by "
            f"{MAP_SIDE} with a label for each row and column: {error}"
        ) from error


def map_text(record: MapRecord) -> str:
    """The matrix as lines of block characters, with its legend."""
    rows, columns = _labels(record.rows), _labels(record.columns)
    wide = max(map(len, rows))
    low, high = _range(record)
    lines = [
        f"{label:<{wide}}  " + "".join(_block(value, low, high) for value in row)
        for label, row in zip(rows, record.matrix, strict=True)
    ]
    lines.append("from left to right: " + " … ".join(dict.fromkeys([columns[0], columns[-1]])))
    nothing = f"{UNTOUCHED} 0   " if low == 0 else ""
    return "\n".join([*lines, f"{nothing}▁ from {low:.3g}   █ to {high:.3g}"])


def map_path(record: MapRecord) -> str:
    """Where the picture lies in the folder of its edit."""
    return f"figures/{record.name}.png"


def draw_map(record: MapRecord) -> bytes:
    """The matrix as PNG, on a white ground so that it reads on a dark page too.

    The same record gives the same bytes under the same version of matplotlib.
    """
    from matplotlib.figure import Figure

    tall, wide = len(record.rows), len(record.columns)
    size = (min(10.0, 2.6 + 0.18 * wide), min(9.0, 1.0 + 0.24 * tall))
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    axes = figure.subplots()
    low, high = _range(record)
    shown = axes.imshow(record.matrix, vmin=low, vmax=high or 1.0, cmap="YlOrRd", aspect="auto")
    sides = (
        (_labels(record.columns), axes.set_xticks),
        (_labels(record.rows), axes.set_yticks),
    )
    for names, place in sides:
        stride = max(1, math.ceil(len(names) / 16))
        chosen = range(0, len(names), stride)
        # A dollar sign would begin a formula.
        place(chosen, [names[index].replace("$", r"\$") for index in chosen])
    axes.tick_params(length=0, labelsize=7, colors=_INK)
    if wide > 6:
        axes.tick_params(axis="x", labelrotation=45)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=7, colors=_INK)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def drawn(manifest: Manifest) -> dict[str, bytes]:
    """The pictures of an edit by their paths in its folder."""
    return {map_path(record): draw_map(record) for record in manifest.figures}


def _labels(names: Sequence[str]) -> list[str]:
    """Labels on one line each, short enough to stand beside a row."""
    return [shorten(visible(name), _LABEL) for name in names]


def _range(record: MapRecord) -> tuple[float, float]:
    """The smallest number, if it is below zero, and the largest."""
    every: list[Any] = [value for row in record.matrix for value in row]
    return min(0.0, *every), max(0.0, *every)


def _block(value: float, low: float, high: float) -> str:
    if value == low == 0:
        return UNTOUCHED
    share = (value - low) / (high - low) if high > low else 1.0
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


__all__ = ["draw_map", "drawn", "map_path", "map_record", "map_text"]
