"""Where each family of models keeps its layers: a table by `model_type`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hubedit.errors import UnsupportedModelError

Architecture = Literal["causal", "masked", "seq2seq"]


@dataclass(frozen=True)
class Layout:
    """Module names of one family; `{}` stands for the number of a block, from 0.

    `mlp_out` is the second MLP matrix. `conv1d` says that it stores its weight as [in, out]
    (transformers' Conv1D) and not as [out, in] (Linear). `first_token_sink` says that the first
    position carries a degenerate activation that must be kept out of statistics. `edit_layers`
    maps a number of blocks to the layer that publications edit at that depth.
    """

    model_type: str
    architecture: Architecture
    block: str
    attention: str
    mlp: str
    mlp_out: str
    embeddings: str
    final_norm: str
    head: str
    conv1d: bool = False
    first_token_sink: bool = True
    depth_key: str = "num_hidden_layers"
    edit_layers: Mapping[int, int] = field(default_factory=dict)

    def depth(self, config: Any) -> int:
        """Number of blocks, from the model's config."""
        return int(getattr(config, self.depth_key))

    def edit_layer(self, config: Any) -> int:
        """The layer to edit where nobody says: the published one, else a third of the way up."""
        depth = self.depth(config)
        return self.edit_layers.get(depth, min(round(depth / 3), depth - 1))

    def at(self, name: str, layer: int) -> str:
        """The module name `block`, `attention`, `mlp` or `mlp_out` of one layer."""
        pattern: str = getattr(self, name)
        return pattern.format(layer)

    def mlp_out_weight(self, layer: int) -> str:
        """The parameter name of the second MLP matrix of one layer."""
        return self.at("mlp_out", layer) + ".weight"

    def fitted(self, modules: Collection[str], head: str | None, config: Any) -> Layout:
        """This layout with the name that the head has in the model at hand.

        Args:
            modules: the names of the model's modules.
            head: the name of its output embeddings, which differs between releases of transformers.
            config: the model's config.

        Raises:
            UnsupportedModelError: the model lacks a module that the layout names.
        """
        fitted = self if self.head in modules or head is None else replace(self, head=head)
        names = [fitted.embeddings, fitted.final_norm, fitted.head]
        for layer in range(self.depth(config)):
            names += [self.at(part, layer) for part in ("block", "attention", "mlp", "mlp_out")]
        missing = [name for name in names if name not in modules]
        if missing:
            raise UnsupportedModelError(
                f"the layout of {self.model_type!r} names the module {missing[0]!r}, which this "
                "model lacks; pass a `Layout` of your own that names where its layers are"
            )
        return fitted

    def layer_of(self, parameter: str) -> int | None:
        """The number of the block a parameter belongs to, or None."""
        prefix = self.block.split("{}")[0]
        if not parameter.startswith(prefix):
            return None
        number = parameter[len(prefix) :].split(".")[0]
        return int(number) if number.isdigit() else None

    def module_of(self, parameter: str) -> str:
        """`mlp`, `attention`, `embeddings`, `head` or `other`: what a parameter belongs to."""
        layer = self.layer_of(parameter)
        if layer is not None:
            for part in ("mlp", "attention"):
                if parameter.startswith(self.at(part, layer) + "."):
                    return part
            return "other"
        for part in ("embeddings", "head"):
            if parameter.startswith(getattr(self, part) + "."):
                return part
        return "other"


def _llama_like(model_type: str, edit_layers: Mapping[int, int]) -> Layout:
    return Layout(
        model_type=model_type,
        architecture="causal",
        block="model.layers.{}",
        attention="model.layers.{}.self_attn",
        mlp="model.layers.{}.mlp",
        mlp_out="model.layers.{}.mlp.down_proj",
        embeddings="model.embed_tokens",
        final_norm="model.norm",
        head="lm_head",
        edit_layers=edit_layers,
    )


_TABLE = (
    Layout(
        model_type="gpt2",
        architecture="causal",
        block="transformer.h.{}",
        attention="transformer.h.{}.attn",
        mlp="transformer.h.{}.mlp",
        mlp_out="transformer.h.{}.mlp.c_proj",
        embeddings="transformer.wte",
        final_norm="transformer.ln_f",
        head="lm_head",
        conv1d=True,
        edit_layers={24: 8, 36: 12, 48: 17},
    ),
    Layout(
        model_type="gpt_neox",
        architecture="causal",
        block="gpt_neox.layers.{}",
        attention="gpt_neox.layers.{}.attention",
        mlp="gpt_neox.layers.{}.mlp",
        mlp_out="gpt_neox.layers.{}.mlp.dense_4h_to_h",
        embeddings="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        head="lm_head",
        edit_layers={44: 15},
    ),
    _llama_like("llama", {28: 5, 32: 5}),
    _llama_like("mistral", {32: 5}),
    _llama_like("qwen2", {24: 5, 28: 5, 32: 5}),
    _llama_like("qwen3", {28: 5, 36: 5}),
)

LAYOUTS: Mapping[str, Layout] = {layout.model_type: layout for layout in _TABLE}


def layout_for(model_type: str) -> Layout:
    """Look up the layout of a family.

    Raises:
        UnsupportedModelError: the family is not in the table; lists what is.
    """
    try:
        return LAYOUTS[model_type]
    except KeyError:
        raise UnsupportedModelError(
            f"models of type {model_type!r} have no layout; known: {', '.join(sorted(LAYOUTS))} "
            "(for another family, pass a `hubedit.layouts.Layout` that says where its layers are)"
        ) from None
