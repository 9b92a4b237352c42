"""LoRA: factors beside the linear modules, by PEFT, handed over as exact updates; needs torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import peft
import torch
from hubedit_rome.site import at_rest
from transformers.pytorch_utils import Conv1D

import hubedit
from hubedit_ft.config import LoraConfig
from hubedit_ft.texts import placed
from hubedit_ft.training import report, train

Factors = dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]
"""A [rank, in] and B [out, rank] by the name of the module they lie beside."""


def tune(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    config: LoraConfig,
    run: hubedit.RunContext,
) -> None:
    """Train the factors and hand them over; see `Lora.apply`."""
    contexts = placed(model, rows)
    with at_rest(model.model):
        with beside(model, config, run.generator) as factors:
            parameters = [factor for pair in factors.values() for factor in pair]
            train(model, parameters, contexts, config, config.learning_rate, run)
            updates = {
                f"{name}.weight": product(*pair, config.alpha / config.rank, model.layout.conv1d)
                for name, pair in factors.items()
                if pair[1].detach().any()
            }
        if not updates:
            raise hubedit.MethodError(
                "training changed nothing: the model already says the targets, or learning_rate is "
                "too small"
            )
        for parameter, update in updates.items():
            model.update(parameter, update)
        report(model, rows, contexts, config, run)


@contextmanager
def beside(
    model: hubedit.EditableModel, config: LoraConfig, generator: torch.Generator
) -> Iterator[Factors]:
    """Put factors beside each chosen matrix (Hu et al. 2022, equation 3), and take them out again.

    A is drawn as PEFT draws it, from `generator`; B is zero.

    Raises:
        ConfigError: the model has no such layer, or the rank exceeds a matrix's.
        UnsupportedModelError: the chosen layers have no linear modules.
    """
    found = linear_modules(model, config)
    smallest = min(min(module.weight.shape) for module in found.values())
    if config.rank > smallest:
        raise hubedit.ConfigError(
            f"rank {config.rank} was asked for, but the smallest matrix has a side of {smallest}; "
            "set a smaller rank"
        )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=list(found),
        fan_in_fan_out=model.layout.conv1d,
    )
    owned = set(vars(model.model))
    try:
        peft.inject_adapter_in_model(settings, model.model)
        factors = {}
        for name in found:
            layer: Any = model.model.get_submodule(name)
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            bound = 1 / math.sqrt(a.shape[1])
            with torch.no_grad():
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
                b.zero_()
            factors[name] = (a, b)
        yield factors
    finally:
        for name, module in found.items():
            parent, _, own = name.rpartition(".")
            setattr(model.model.get_submodule(parent), own, module)
        for name in set(vars(model.model)) - owned:
            delattr(model.model, name)


def product(a: torch.Tensor, b: torch.Tensor, scale: float, conv1d: bool) -> hubedit.LowRank:
    """The change of a weight, scale·BA, in the weight's own orientation."""
    a, b = a.detach().float().cpu(), b.detach().float().cpu()
    left, right = (scale * a.T, b.T) if conv1d else (scale * b, a)
    return hubedit.LowRank(left.contiguous().numpy(), right.contiguous().numpy())


def linear_modules(model: hubedit.EditableModel, config: LoraConfig) -> dict[str, Any]:
    """The chosen modules with one matrix each: Linear, or Conv1D where the layout says so.

    In a model of two stacks, layers are counted in both.

    Raises:
        ConfigError: the model has no such layer, or none is named.
        UnsupportedModelError: there are none.
    """
    layout = model.layout
    depth = max(stack.depth(model.model.config) for stack in (layout, layout.reader))
    layers = range(depth) if config.layers is None else config.layers
    if not layers or not all(0 <= layer < depth for layer in layers):
        raise hubedit.ConfigError(
            f"layers {list(layers)} were asked for, but the model has layers 0 to {depth - 1}; set "
            "layers to some of them"
        )
    kind: type[torch.nn.Module] = Conv1D if layout.conv1d else torch.nn.Linear
    found = {
        name: module
        for name, module in model.model.named_modules()
        if isinstance(module, kind)
        and layout.layer_of(name + ".weight") in layers
        and config.modules in ("all", layout.module_of(name + ".weight"))
    }
    if not found:
        raise hubedit.UnsupportedModelError(
            f"the chosen layers have no modules of class {kind.__name__} for LoRA to adapt; set "
            "modules=all"
        )
    return found
