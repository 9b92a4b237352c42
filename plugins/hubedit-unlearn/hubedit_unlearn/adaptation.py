"""What is trained: the chosen weights in place, or low-rank factors beside them; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch

import hubedit
from hubedit_unlearn.choice import belongs
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.sharding import Sharding

Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Trained:
    """What an optimiser changes.

    `stored()` gives tensors of the model, each with the value it has once the change is part of the
    weights; `vectors()` gives those trained tensors in which the change is linear, each with its
    value at the start, where the method negates it; `updates()` gives the change by parameter,
    empty where it was made in place.
    """

    parameters: Sequence[torch.nn.Parameter]
    stored: Callable[[], Pairs]
    vectors: Callable[[], Pairs]
    updates: Callable[[], Mapping[str, hubedit.LowRank]] = field(default=dict)


def adapted(
    model: hubedit.EditableModel,
    config: TrainingConfig,
    generator: torch.Generator,
    sharding: Sharding,
) -> AbstractContextManager[Trained]:
    """Make the chosen weights trainable while the `with` lasts, by the configured adaptation.

    The model is sharded once it has all its parameters.

    Raises:
        ConfigError: settings contradict each other or the model.
        UnsupportedModelError: LoRA has nothing to adapt.
        MethodError: the weights cannot be trained in their working dtype.
    """
    if config.adaptation == "full":
        return in_place(model, config, sharding)
    from hubedit_unlearn.lora import beside

    return beside(model, config, generator, sharding)


def chosen_layers(model: hubedit.EditableModel, config: TrainingConfig) -> set[int]:
    """The blocks that may change.

    Raises:
        ConfigError: the model has no such layer, or none is named.
    """
    depth = model.layout.depth(model.model.config)
    if config.layers is None:
        return set(range(depth))
    if not config.layers or not all(0 <= layer < depth for layer in config.layers):
        raise hubedit.ConfigError(
            f"layers {list(config.layers)} were asked for, but the model has layers 0 to "
            f"{depth - 1}; set layers to some of them"
        )
    return set(config.layers)


@contextmanager
def in_place(
    model: hubedit.EditableModel, config: TrainingConfig, sharding: Sharding
) -> Iterator[Trained]:
    """Train the chosen parameters themselves: matrices, biases and layer norms.

    Raises:
        ConfigError: see `chosen_layers`.
        UnsupportedModelError: there are none.
        MethodError: they are not in float32.
    """
    layers, layout = chosen_layers(model, config), model.layout
    names = [
        name
        for name, _ in model.model.named_parameters()
        if (layout.layer_of(name) in layers and belongs(layout, name, config.modules))
        or (config.train_embeddings and layout.module_of(name) in ("embeddings", "head"))
    ]
    if not names:
        raise hubedit.UnsupportedModelError(
            f"the chosen layers have no weights of modules={config.modules}; set modules=all"
        )
    odd = {model.model.get_parameter(name).dtype for name in names} - {torch.float32}
    if odd:
        raise hubedit.MethodError(
            f"weights are trained in float32, and the model is loaded as {odd.pop()}; leave the "
            "recipe's dtype at float32, or set adaptation=lora"
        )
    for name in names:
        model.model.get_parameter(name).requires_grad_(True)
    sharding.shard(model)
    chosen = [model.model.get_parameter(name) for name in names]
    starts = [parameter.detach().clone() for parameter in chosen] if config.negates else []
    yield Trained(
        chosen,
        lambda: ((parameter, parameter.detach()) for parameter in chosen),
        lambda: zip(chosen, starts, strict=True),
    )
