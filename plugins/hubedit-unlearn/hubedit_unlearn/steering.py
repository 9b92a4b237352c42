"""RMU: hidden states after one block driven to a random direction; needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import hubedit
from hubedit_unlearn.config import RmuConfig
from hubedit_unlearn.losses import Term
from hubedit_unlearn.scoring import Observed, observed
from hubedit_unlearn.setting import Setting

MEASURED = 32
"""Forget texts on which the norm of the states is measured, at most."""


def misdirection(config: RmuConfig, setting: Setting) -> Sequence[Term]:
    """‖h(forget) − c·u‖² + α·‖h(retain) − h₀(retain)‖², means over tokens and dimensions.

    Li et al. 2024: h are states after block l, u is a vector drawn uniformly
    from [0, 1) in each dimension and scaled to norm 1, the same for all tokens. Deviation: padding
    is left out of the means.
    """
    model, run = setting.model, setting.run
    layer = steered_layer(config, model)
    with torch.no_grad():
        some = setting.parts.forget[:MEASURED]
        norm = float(observed(model, some, layer).states.norm(dim=-1).median())
    width = int(model.model.get_parameter(f"{model.layout.embeddings}.weight").shape[1])
    direction = torch.rand(width, generator=run.generator)
    coefficient = config.steering or 4 * norm
    target = (coefficient * direction / direction.norm()).to(model.device)
    run.record(
        "steering",
        {"layer": layer, "state_norm": float(f"{norm:.6g}"), "steering": coefficient},
    )

    def steered(batch: Observed) -> torch.Tensor:
        return squares(batch.states, target) / batch.share.read

    def kept(batch: Observed) -> torch.Tensor:
        assert batch.before is not None
        return squares(batch.states, batch.before) / batch.share.read

    return [
        Term("forget", steered, layer=layer),
        Term("retain", kept, config.retain_weight, before="states", layer=layer),
    ]


def squares(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The squared difference, a mean over dimensions and a sum over tokens."""
    return (one - other).square().mean(-1).sum()


def steered_layer(config: RmuConfig, model: hubedit.EditableModel) -> int:
    """The block after which states are steered.

    Raises:
        ConfigError: the model has no such layer.
    """
    depth = model.layout.depth(model.model.config)
    layer = min(max(round(depth * 7 / 32), 2), depth - 1) if config.layer is None else config.layer
    if layer >= depth:
        raise hubedit.ConfigError(
            f"layer {layer} was asked for, but the model has layers 0 to {depth - 1}; set layer to "
            "one of them"
        )
    return layer


def steered_blocks(config: RmuConfig, model: hubedit.EditableModel) -> RmuConfig:
    """The settings with the blocks that may change filled in: l−2, l−1 and l."""
    if config.layers is not None:
        return config
    layer = steered_layer(config, model)
    return config.model_copy(update={"layers": tuple(range(max(layer - 2, 0), layer + 1))})
