"""The one matrix that is edited, and the state a model must be in meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

import hubedit
from hubedit_rome.auto import Auto


@dataclass(frozen=True)
class Site:
    """Where the edit happens: names of the block, the matrix and its weight.

    `conv1d` says that the weight is stored as [in, out] and not as [out, in].
    """

    layer: int
    block: str
    mlp_out: str
    weight: str
    conv1d: bool

    @classmethod
    def find(cls, model: hubedit.EditableModel, layer: int | Auto) -> Site:
        """Name the second MLP matrix of a layer, with `auto` the one its family is edited at.

        In a model that reads and writes with two stacks it is the encoder's, which reads the
        subject.

        Raises:
            ConfigError: the model has no such layer.
            UnsupportedModelError: the matrix is of another kind than the layout says.
        """
        layout, config = model.layout.reader, model.model.config
        depth = layout.depth(config)
        if layer == "auto":
            layer = layout.edit_layer(config)
        if not 0 <= layer < depth:
            raise hubedit.ConfigError(
                f"layer {layer} was asked for, but the model has layers 0 to {depth - 1}; "
                "set layer to one of them"
            )
        name = layout.at("mlp_out", layer)
        matrix = model.model.get_submodule(name)
        if isinstance(matrix, torch.nn.Linear) == layout.conv1d:
            raise hubedit.UnsupportedModelError(
                f"{name} is a {type(matrix).__name__}, but the layout of {layout.model_type!r} "
                f"says {'Conv1D' if layout.conv1d else 'Linear'}; correct its `conv1d`"
            )
        return cls(
            layer, layout.at("block", layer), name, layout.mlp_out_weight(layer), layout.conv1d
        )


@contextmanager
def at_rest(model: torch.nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode with no parameter asking for a gradient, then undo both."""
    training = [(module, module.training) for module in model.modules()]
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, was in training:
            module.training = was
        for parameter in wanting:
            parameter.requires_grad_(True)


def doubles(values: torch.Tensor) -> torch.Tensor:
    """The values in float64, on a device that has it."""
    return values.to(doubles_on(values.device)).to(torch.float64)


def doubles_on(device: torch.device) -> torch.device:
    """The device for float64 work: the given one where it has float64, else the CPU."""
    return device if device.type == "cuda" else torch.device("cpu")
