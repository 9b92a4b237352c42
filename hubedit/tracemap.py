"""Where facts are read: indirect effects by token and layer, as text and as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubedit.effects import MODULES
from hubedit.heatmap import BLOCKS

NONE = "·"
TITLES = {
    "block": "state after one block",
    "attention": "attention of a window of layers",
    "mlp": "MLP of a window of layers",
}
_INK = "#333333"
_MAPS = {"block": "Purples", "attention": "Reds", "mlp": "Greens"}


def trace_text(found: Mapping[str, Any], width: int = 64) -> str:
    """Three grids of block characters, `width` layers to a line, with what they say.

    Args:
        found: a stored trace.
    """
    most = max(_largest(found), 1e-9)
    depth = _depth(found)
    lines = []
    for module in MODULES:
        window = "" if module == "block" else f" ({found['window']} at a time)"
        for begin in range(0, depth, width):
            end = min(begin + width, depth)
            lines.append(f"{TITLES[module]}{window}, layers {begin} to {end - 1}")
            for role, values in _rows(found, module):
                cells = "".join(_block(value, most) for value in values[begin:end])
                lines.append(f"  {role:<22}{cells}  {max(values[begin:end]):+.3f}")
            lines.append("")
    lines.append(
        f"{found['prompts']} prompt(s): the answer has {found['clean']:.3f}, with the subject "
        f"corrupted {found['corrupted']:.3f}; a full block {BLOCKS[-1]} gives back {most:.3f}"
    )
    layers = ", ".join(map(str, found["edit_layers"]))
    lines.append(f"MLPs matter most at layer {found['mlp_peak']}; layers to edit: {layers}")
    return "\n".join(lines)


def write_trace_map(found: Mapping[str, Any], path: Path) -> None:
    """Draw the three grids as a PNG, on a white ground so that it reads on a dark page too.

    The same trace gives the same bytes under the same version of matplotlib.
    """
    from matplotlib.figure import Figure

    depth, most = _depth(found), max(_largest(found), 1e-9)
    wide = min(6.0, 2.2 + 0.12 * depth)
    figure = Figure(figsize=(3 * wide, 3.0), dpi=110, facecolor="white")
    axes = figure.subplots(1, 3, sharey=True)
    for own, module in zip(axes, MODULES, strict=True):
        rows = _rows(found, module)
        image = own.imshow(
            [values for _, values in rows], cmap=_MAPS[module], vmin=0, vmax=most, aspect="auto"
        )
        own.set_title(TITLES[module], fontsize=9, color=_INK)
        own.set_yticks(range(len(rows)), [role for role, _ in rows])
        own.set_xticks(range(0, depth, max(1, math.ceil(depth / 12))))
        own.set_xlabel("layer", fontsize=8, color=_INK)
        own.tick_params(length=0, labelsize=8, colors=_INK)
        for spine in own.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(image, ax=own, pad=0.02)
        bar.ax.tick_params(labelsize=7, colors=_INK)
    figure.tight_layout()
    figure.savefig(path, format="png", metadata={"Software": None})


def _rows(found: Mapping[str, Any], module: str) -> list[tuple[str, Sequence[float]]]:
    """The roles that some prompt has and that the noise reaches, with their effects by layer."""
    named = zip(found["roles"], found["effects"][module], strict=True)
    return [(role, values) for role, values in named if values is not None]


def _depth(found: Mapping[str, Any]) -> int:
    return len(_rows(found, "block")[0][1])


def _largest(found: Mapping[str, Any]) -> float:
    return max(max(values) for module in MODULES for _, values in _rows(found, module))


def _block(value: float, most: float) -> str:
    share = value / most
    return NONE if share < 0.5 / len(BLOCKS) else BLOCKS[min(int(share * 8), 7)]


__all__ = ["trace_text", "write_trace_map"]
