"""Low-rank factors beside the linear modules, by PEFT, handed over as exact updates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers.pytorch_utils import Conv1D

import hubedit
from hubedit_unlearn.adaptation import Pairs, Trained, chosen_layers
from hubedit_unlearn.choice import belongs
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.sharding import Sharding, gathered, like


@contextmanager
def beside(
    model: hubedit.EditableModel,
    config: TrainingConfig,
    generator: torch.Generator,
    sharding: Sharding,
) -> Iterator[Trained]:
    """Put factors A [rank, in] and B [out, rank] beside each chosen matrix (Hu et al. 2021, eq. 3).

    A is drawn as PEFT draws it, from `generator`; B is zero. PEFT's modules are taken out again.

    Raises:
        ConfigError: the rank exceeds a matrix's, or embeddings were to be trained.
        UnsupportedModelError: the chosen layers have no linear modules.
    """
    if config.train_embeddings:
        raise hubedit.ConfigError(
            "train_embeddings=true needs adaptation=full; LoRA adapts linear modules alone"
        )
    found = linear_modules(model, config)
    smallest = min(min(module.weight.shape) for module in found.values())
    if config.rank > smallest:
        raise hubedit.ConfigError(
            f"rank {config.rank} was asked for, but the smallest matrix has a side of {smallest}; "
            "set a smaller rank"
        )
    conv1d, scaling = model.layout.conv1d, config.alpha / config.rank
    owned = set(vars(model.model))
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=list(found),
        fan_in_fan_out=conv1d,
    )
    try:
        inject_adapter_in_model(settings, model.model)
        adapters = {name: model.model.get_submodule(name) for name in found}
        for a, b in map(_factors, adapters.values()):
            a.data, b.data = a.data.float(), b.data.float()
            bound = 1 / math.sqrt(a.shape[1])
            with torch.no_grad():
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
                b.zero_()
        sharding.shard(model)
        factors = {name: _factors(adapter) for name, adapter in adapters.items()}

        def product(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            """The change of a weight as left · right, in the weight's own orientation."""
            a, b = (gathered(factor.detach()).float() for factor in factors[name])
            return (scaling * a.T, b.T) if conv1d else (scaling * b, a)

        def stored() -> Pairs:
            for name, (_, b) in factors.items():
                left, right = product(name)
                weight: torch.Tensor = found[name].weight
                yield weight, weight.detach().float() + like(left @ right, weight)
                yield b, torch.zeros_like(b)

        def updates() -> Mapping[str, hubedit.LowRank]:
            return {f"{name}.weight": hubedit.LowRank(*product(name)) for name in factors}

        def vectors() -> Pairs:
            return ((b, torch.zeros_like(b)) for _, b in factors.values())

        yield Trained(
            [factor for pair in factors.values() for factor in pair], stored, vectors, updates
        )
    finally:
        for name, module in found.items():
            parent, _, own = name.rpartition(".")
            setattr(model.model.get_submodule(parent), own, module)
        for name in set(vars(model.model)) - owned:
            delattr(model.model, name)


def linear_modules(model: hubedit.EditableModel, config: TrainingConfig) -> dict[str, Any]:
    """The chosen modules with one matrix each: Linear, or Conv1D where the layout says so.

    Raises:
        ConfigError: see `chosen_layers`.
        UnsupportedModelError: there are none.
    """
    layers, layout = chosen_layers(model, config), model.layout
    kind: type[torch.nn.Module] = Conv1D if layout.conv1d else torch.nn.Linear
    found = {
        name: module
        for name, module in model.model.named_modules()
        if isinstance(module, kind)
        and layout.layer_of(name + ".weight") in layers
        and belongs(layout, name + ".weight", config.modules)
    }
    if not found:
        raise hubedit.UnsupportedModelError(
            f"the chosen layers have no modules of class {kind.__name__} for LoRA to adapt; set "
            "adaptation=full, or modules=all"
        )
    return found


def _factors(layer: Any) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight
