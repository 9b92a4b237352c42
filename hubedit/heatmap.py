"""Where in the model an edit lies: its relative norm by module and layer, as text and as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubedit.layouts import LAYOUTS
from hubedit.manifest import Manifest

LAYERED = ("attention", "mlp", "other")
OUTSIDE = ("embeddings", "head", "other")
STEPS = tuple(10 ** (-4 + half / 2) for half in range(1, 8))
"""Where one block gives way to the next: half decades from 3.2e-4 to 0.32."""
BLOCKS = "▁▂▃▄▅▆▇█"
UNTOUCHED, UNKNOWN = "·", "?"
_INK = "#333333"
LEGEND = (
    "‖ΔW‖/‖W‖:  ▁ to 0.0003  ▂ 0.001  ▃ 0.003  ▄ 0.01  ▅ 0.03  ▆ 0.1  ▇ 0.3  █ above",
    "· untouched   ? changed, no norm recorded",
)


@dataclass(frozen=True)
class Grid:
    """Modules by layers, and what belongs to no layer.

    A cell is the largest relative norm of its changed tensors, None where nothing changed, and NaN
    where only tensors without a norm did. `cells` has a row for each module of `LAYERED` and a
    column for each layer; `outside` has a cell for each module of `OUTSIDE`.
    """

    layers: int
    cells: tuple[tuple[float | None, ...], ...]
    outside: tuple[float | None, ...]


def heat_grid(manifest: Manifest, layers: int | None = None) -> Grid:
    """Lay the changed tensors of an edit out by module and layer.

    Args:
        layers: the number of blocks of the model; as many as the edit reaches if None.
    """
    return grid_of([(t.module, t.layer, t.relative_norm) for t in manifest.tensors], layers)


def grid_of(
    changed: Sequence[tuple[str, int | None, float | None]], layers: int | None = None
) -> Grid:
    """Lay changed tensors out that are given by module, layer and relative norm.

    Args:
        changed: of each tensor, what is known.
        layers: the number of blocks of the model; as many as the change reaches if None.
    """
    reached = max((layer + 1 for _, layer, _ in changed if layer is not None), default=0)
    depth = max(layers or 0, reached)
    cells: dict[tuple[str, int | None], float] = {}
    for module, layer, norm in changed:
        known = OUTSIDE if layer is None else LAYERED
        place = (module if module in known else "other", layer)
        cells[place] = _larger(cells.get(place), norm)
    return Grid(
        layers=depth,
        cells=tuple(tuple(cells.get((name, layer)) for layer in range(depth)) for name in LAYERED),
        outside=tuple(cells.get((name, None)) for name in OUTSIDE),
    )


def place_of(model_type: str, tensor: str) -> tuple[str, int | None] | None:
    """Module and layer that a stored tensor belongs to by its name, or None if it does not tell.

    Files of some models leave out the first part of every name.
    """
    layout = LAYOUTS.get(model_type)
    if layout is None:
        return None
    for name in (tensor, f"{layout.block.partition('.')[0]}.{tensor}"):
        module, layer = layout.module_of(name), layout.layer_of(name)
        if module != "other" and (layer is not None or module in OUTSIDE):
            return module, layer
    return None


def heat_text(grid: Grid, width: int = 64) -> str:
    """The grid as lines of block characters, `width` layers to a line, with its legend."""
    parts = [_lines(grid, first, width) for first in range(0, max(grid.layers, 1), width)]
    outside = "  ".join(
        f"{name} {_block(cell)}" for name, cell in zip(OUTSIDE, grid.outside, strict=True)
    )
    return "\n\n".join([*parts, f"outside    {outside}", "\n".join(LEGEND)])


def write_heatmap(manifest: Manifest, path: Path, layers: int | None = None) -> None:
    """Draw the grid as a PNG, on a white ground so that it reads on a dark page too.

    The same manifest gives the same bytes under the same version of matplotlib.

    Args:
        layers: the number of blocks of the model; as many as the edit reaches if None.
    """
    from matplotlib.figure import Figure

    grid = heat_grid(manifest, layers)
    wide = max(grid.layers, 1)
    figure = Figure(figsize=(min(10.0, 4.2 + 0.2 * wide), 1.9), dpi=110, facecolor="white")
    left, middle = figure.subplots(1, 2, width_ratios=[1, max(wide, 6)])
    _draw(left, [[cell] for cell in grid.outside], OUTSIDE)
    left.set_xticks([0], ["outside"])
    colours = _draw(middle, [list(row) or [None] for row in grid.cells], LAYERED)
    stride = max(1, math.ceil(wide / 16))
    middle.set_xticks(range(0, grid.layers, stride))
    middle.set_xlabel("layer", fontsize=8, color=_INK)
    bar = figure.colorbar(colours, ax=middle, pad=0.02)
    bar.set_label("‖ΔW‖ / ‖W‖", fontsize=8, color=_INK)
    bar.ax.tick_params(labelsize=7, colors=_INK)
    bar.ax.minorticks_off()
    figure.tight_layout()
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw(axes: Any, rows: list[list[float | None]], names: tuple[str, ...]) -> Any:
    """Fill one pair of axes with cells; returns what a colour bar needs."""
    from matplotlib.colors import LogNorm

    wide = len(rows[0])
    values = [[math.nan if v is None else max(v, 1e-4) for v in row] for row in rows]
    image = axes.imshow(values, norm=LogNorm(1e-4, 1.0), cmap="YlOrRd", aspect="auto")
    axes.set_facecolor("#ececec")
    axes.hlines([y - 0.5 for y in range(1, len(rows))], -0.5, wide - 0.5, color="white")
    axes.vlines([x - 0.5 for x in range(1, wide)], -0.5, len(rows) - 0.5, color="white")
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if value is not None and math.isnan(value):
                axes.text(x, y, UNKNOWN, ha="center", va="center", color=_INK)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=8, colors=_INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _larger(known: float | None, relative_norm: float | None) -> float:
    norm = math.nan if relative_norm is None else relative_norm
    if known is None or math.isnan(known):
        return norm
    return known if math.isnan(norm) else max(known, norm)


def _lines(grid: Grid, first: int, width: int) -> str:
    last = min(first + width, grid.layers)
    lines = ["layer".ljust(11) + _ruler(first, last)]
    for module, row in zip(LAYERED, grid.cells, strict=True):
        lines.append(module.ljust(11) + "".join(map(_block, row[first:last])))
    return "\n".join(line.rstrip() for line in lines)


def _ruler(first: int, last: int) -> str:
    """Numbers of the layers, every fifth, above their column."""
    ruler = ""
    for layer in range(first, last):
        if layer % 5 == 0 and len(ruler) <= layer - first:
            ruler = ruler.ljust(layer - first) + str(layer)
    return ruler


def _block(value: float | None) -> str:
    if value is None:
        return UNTOUCHED
    if math.isnan(value):
        return UNKNOWN
    return BLOCKS[sum(value > step for step in STEPS)]


__all__ = ["BLOCKS", "Grid", "grid_of", "heat_grid", "heat_text", "place_of", "write_heatmap"]
