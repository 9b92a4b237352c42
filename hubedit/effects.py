"""Indirect effects by kind of token and layer: averaged, and the layers that they propose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

Module = Literal["block", "attention", "mlp"]
MODULES: tuple[Module, ...] = ("block", "attention", "mlp")
"""What is restored: the state after a block, or what an attention or an MLP adds to it."""

ROLES = (
    "before the subject",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)
"""The kinds of tokens that effects are averaged over, as in figure 2 of the paper."""

SUBJECT_END = ROLES.index("last subject token")
CARRIED = 0.9
"""Share of its peak that the state at the subject's end has while the fact is still there."""

MATTERS = 0.1
"""Share of its peak that an MLP's effect has where it takes part."""


def role_of(token: int, first: int, last: int, place: int | None) -> int:
    """The index in `ROLES` of a token.

    Args:
        first: index of the subject's first token.
        last: index of its last token.
        place: where the answer is read, if that is among the tokens.
    """
    if token == last:
        return SUBJECT_END
    if token == place:
        return len(ROLES) - 1
    if token < first:
        return 0
    if token < last:
        return 1 if token == first else 2
    return 4 if token == last + 1 else 5


def averaged(parts: Sequence[Mapping[str, Any]], depth: int) -> dict[str, Any]:
    """Indirect effects averaged over tokens of a role, then over prompts, and what they propose.

    Args:
        parts: what `trace_one` found.
        depth: number of blocks.

    Returns:
        `effects` of each module [roles][layers], None for a role that no prompt has; `counts` of
        prompts by role; `mlp_peak`, the layer whose MLP window matters most at the subject's last
        token; `layer` and `edit_layers`, see `proposed`.
    """
    effects: dict[str, list[list[float] | None]] = {}
    counts = [sum(role in part["roles"] for part in parts) for role in range(len(ROLES))]
    for module in MODULES:
        effects[module] = [
            _mean([list(_rows(part, module, role)) for part in parts if role in part["roles"]])
            for role in range(len(ROLES))
        ]
    nothing = [0.0] * depth
    state, mlp = (effects[module][SUBJECT_END] or nothing for module in ("block", "mlp"))
    layers = proposed(state, mlp)
    return {
        "prompts": len(parts),
        "clean": sum(part["clean"] for part in parts) / len(parts),
        "corrupted": sum(part["corrupted"] for part in parts) / len(parts),
        "roles": list(ROLES),
        "counts": counts,
        "effects": effects,
        "mlp_peak": _peak(mlp),
        "layer": layers[-1],
        "edit_layers": layers,
    }


def proposed(state: Sequence[float], mlp: Sequence[float]) -> list[int]:
    """The layers to edit, in rising order; the last is the one where a single layer is edited.

    It is the last layer at which the state of the subject's last token still carries the fact and
    whose MLP takes part: what is written there or below is read, what is written above is not. The
    layer of the MLP peak alone, as published for a model of 48 blocks, is often the first one in
    small models, where an MLP knows little more than one token. With it come the layers below that
    take part, a sixth of the blocks, two to five.

    Args:
        state: effect of the block's output at the subject's last token, by layer.
        mlp: effect of the window of MLPs there, by layer.
    """
    parts = [layer for layer, value in enumerate(mlp) if value >= MATTERS * max(mlp)]
    still = [layer for layer in parts if state[layer] >= CARRIED * max(state)]
    last = max(still, default=_peak(mlp))
    most = min(max(len(mlp) // 6, 2), 5)
    lowest = last
    while lowest - 1 in parts and last - lowest + 1 < most:
        lowest -= 1
    return list(range(lowest, last + 1))


def _peak(values: Sequence[float]) -> int:
    """The first layer of the largest value."""
    return max(range(len(values)), key=lambda layer: (values[layer], -layer))


def _rows(part: Mapping[str, Any], module: str, role: int) -> Iterator[list[float]]:
    """The effects [layers] of each token of a role in one prompt."""
    for token, own in enumerate(part["roles"]):
        if own == role:
            yield [value - part["corrupted"] for value in part[module][token]]


def _mean(prompts: Sequence[Sequence[Sequence[float]]]) -> list[float] | None:
    """The mean over prompts of the mean over tokens, by layer."""
    if not prompts:
        return None
    each = [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in prompts]
    return [sum(column) / len(each) for column in zip(*each, strict=True)]


__all__ = ["MODULES", "ROLES", "SUBJECT_END", "Module", "averaged", "proposed", "role_of"]
