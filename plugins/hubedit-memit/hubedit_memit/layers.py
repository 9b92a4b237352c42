"""Which layers are edited where nobody says: a table of the published ones, and a rule."""

from __future__ import annotations

from typing import Any

import hubedit
from hubedit.layouts import Layout

PUBLISHED: dict[tuple[str, int], tuple[int, ...]] = {
    ("gpt2", 48): (13, 14, 15, 16, 17),
    ("gptj", 28): (3, 4, 5, 6, 7, 8),
    ("llama", 32): (4, 5, 6, 7, 8),
    ("mistral", 32): (4, 5, 6, 7, 8),
    ("qwen2", 28): (4, 5, 6, 7, 8),
}
"""By family and number of blocks (Meng et al. 2023, and the settings EasyEdit ships)."""


def default_layers(layout: Layout, config: Any, single: bool = False) -> tuple[int, ...]:
    """The published layers; else a sixth of the blocks, two to five, up to the one ROME edits.

    With `single`, and where blocks normalise what they add up, it is the one that ROME edits.
    """
    depth, last = layout.depth(config), layout.edit_layer(config)
    if single or layout.post_norm:
        return (last,)
    if (layout.model_type, depth) in PUBLISHED:
        return PUBLISHED[layout.model_type, depth]
    count = min(max(depth // 6, 2), 5)
    return tuple(range(max(last - count + 1, 0), last + 1))


def check_layers(layout: Layout, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Refuse layers that are not in rising order, or whose shares would not add up.

    Raises:
        ConfigError: there is none, they are not in rising order, or they are several in a family
            whose blocks normalise what they add up.
    """
    if not layers or list(layers) != sorted(set(layers)):
        raise hubedit.ConfigError(
            f"layers {list(layers)} were asked for; name at least one, in rising order, such as "
            "layers=[3,4,5]"
        )
    if layout.post_norm and len(layers) > 1:
        raise hubedit.ConfigError(
            f"blocks of {layout.model_type} normalise what they add up, so that shares of several "
            f"layers do not sum to a whole; name one, such as layers=[{layers[-1]}]"
        )
    return layers
