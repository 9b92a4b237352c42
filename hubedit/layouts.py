"""Where each family of models keeps its layers: a table by `model_type`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hubedit.errors import UnsupportedModelError

Part = Literal["mlp", "attention", "embeddings", "head"]
Architecture = Literal["causal", "masked", "seq2seq"]


@dataclass(frozen=True)
class Layout:
    """Module names of one family; `{}` stands for the number of a block, from 0.

    `attention` and `mlp` are the modules whose outputs join the residual stream; where the family
    has no module for the whole, they are the last matrix of it. `mlp_out` is the second MLP matrix.
    `final_norm` is None where no norm follows the last block. `head` holds the vocabulary matrix of
    the output. `parts` names further modules or parameters of an attention, an MLP, the embeddings
    or the head: those that lie outside the module named for it.

    `conv1d` says that `mlp_out` stores its weight as [in, out] (transformers' Conv1D) and not as
    [out, in] (Linear). `first_token_sink` says that the first position carries a degenerate
    activation that must be kept out of statistics. `post_norm` says that a block normalises what
    its parts have added up, so that its output is no sum of theirs. `reserved_positions` counts the
    position embeddings that no text can use. `edit_layers` maps a number of blocks to the layer
    that publications edit at that depth.

    A model of encoder and decoder has two stacks: this layout is its decoder's, which writes the
    answer, and `encoder` the layout of the encoder, which reads the prompt.
    """

    model_type: str
    architecture: Architecture
    block: str
    attention: str
    mlp: str
    mlp_out: str
    embeddings: str
    final_norm: str | None
    head: str
    parts: Mapping[str, Part] = field(default_factory=dict)
    conv1d: bool = False
    first_token_sink: bool = True
    post_norm: bool = False
    reserved_positions: int = 0
    depth_key: str = "num_hidden_layers"
    edit_layers: Mapping[int, int] = field(default_factory=dict)
    encoder: Layout | None = None

    @property
    def reader(self) -> Layout:
        """The stack that reads the prompt: the encoder where there is one, else this."""
        return self.encoder or self

    def depth(self, config: Any) -> int:
        """Number of blocks, from the model's config."""
        return int(getattr(config, self.depth_key))

    def positions(self, config: Any) -> int | None:
        """How many tokens a text may have, from the model's config; None: nothing limits it."""
        most = getattr(config, "max_position_embeddings", None)
        return None if most is None else int(most) - self.reserved_positions

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
        """This layout with the names of head and final norm that the model at hand has.

        Args:
            modules: the names of the model's modules.
            head: the name of its output embeddings, which differs between releases of transformers.
            config: the model's config.

        Raises:
            UnsupportedModelError: the model lacks a module that the layout names.
        """
        fitted = self if self.head in modules or head is None else replace(self, head=head)
        if fitted.final_norm not in modules:
            # The same family has it in some sizes and not in others.
            fitted = replace(fitted, final_norm=None)
        if fitted.encoder is not None:
            fitted = replace(fitted, encoder=fitted.encoder.fitted(modules, head, config))
        names = [fitted.embeddings, fitted.head]
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
        """The number of the block a parameter belongs to, within its stack, or None."""
        prefix = self.block.split("{}")[0]
        number = parameter[len(prefix) :].split(".")[0] if parameter.startswith(prefix) else ""
        if number.isdigit():
            return int(number)
        return self.encoder.layer_of(parameter) if self.encoder else None

    def module_of(self, parameter: str) -> Part | Literal["other"]:
        """`mlp`, `attention`, `embeddings`, `head` or `other`: what a parameter belongs to."""
        named: dict[str, Part] = {
            self.mlp: "mlp",
            self.attention: "attention",
            self.embeddings: "embeddings",
            self.head: "head",
            **self.parts,
        }
        layer = self.layer_of(parameter)
        for pattern, part in named.items():
            if (parameter + ".").startswith(pattern.format(layer) + "."):
                return part
        return self.encoder.module_of(parameter) if self.encoder else "other"


def _llama_like(model_type: str, edit_layers: Mapping[int, int] | None = None) -> Layout:
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
        edit_layers=edit_layers or {},
    )


def _gpt2_like(model_type: str, mlp_out: str, **more: Any) -> Layout:
    return Layout(
        model_type=model_type,
        architecture="causal",
        block="transformer.h.{}",
        attention="transformer.h.{}.attn",
        mlp="transformer.h.{}.mlp",
        mlp_out=f"transformer.h.{{}}.mlp.{mlp_out}",
        embeddings="transformer.wte",
        final_norm="transformer.ln_f",
        head="lm_head",
        **more,
    )


def _bert_like(model_type: str, head: str, bias: str, **more: Any) -> Layout:
    block = model_type + ".encoder.layer.{}"
    return Layout(
        model_type=model_type,
        architecture="masked",
        block=block,
        attention=block + ".attention.output.dense",
        mlp=block + ".output.dense",
        mlp_out=block + ".output.dense",
        embeddings=f"{model_type}.embeddings.word_embeddings",
        final_norm=None,
        head=head,
        post_norm=True,
        parts={block + ".attention": "attention", block + ".intermediate": "mlp", bias: "head"},
        **more,
    )


def _t5_stack(stack: str, mlp: int, **more: Any) -> Layout:
    block = stack + ".block.{}"
    return Layout(
        model_type="t5",
        architecture="seq2seq",
        block=block,
        attention=block + ".layer.0.SelfAttention",
        mlp=f"{block}.layer.{mlp}.DenseReluDense",
        mlp_out=f"{block}.layer.{mlp}.DenseReluDense.wo",
        embeddings="shared",
        final_norm=f"{stack}.final_layer_norm",
        head="lm_head",
        parts={
            f"{stack}.embed_tokens": "embeddings",
            block + ".layer.1.EncDecAttention": "attention",
        },
        **more,
    )


def _bart_stack(stack: str, **more: Any) -> Layout:
    block = f"model.{stack}.layers.{{}}"
    return Layout(
        model_type="bart",
        architecture="seq2seq",
        block=block,
        attention=block + ".self_attn",
        mlp=block + ".fc2",
        mlp_out=block + ".fc2",
        embeddings="model.shared",
        final_norm=None,
        head="lm_head",
        parts={
            f"model.{stack}.embed_tokens": "embeddings",
            block + ".encoder_attn": "attention",
            block + ".fc1": "mlp",
        },
        depth_key=f"{stack}_layers",
        post_norm=True,
        **more,
    )


_TABLE = (
    _gpt2_like("gpt2", "c_proj", conv1d=True, edit_layers={24: 8, 36: 12, 48: 17}),
    _gpt2_like("gpt_neo", "c_proj"),
    _gpt2_like("gptj", "fc_out", edit_layers={28: 5}),
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
    Layout(
        model_type="opt",
        architecture="causal",
        block="model.decoder.layers.{}",
        attention="model.decoder.layers.{}.self_attn",
        mlp="model.decoder.layers.{}.fc2",
        mlp_out="model.decoder.layers.{}.fc2",
        embeddings="model.decoder.embed_tokens",
        final_norm="model.decoder.final_layer_norm",
        head="lm_head",
        parts={"model.decoder.layers.{}.fc1": "mlp"},
    ),
    _llama_like("llama", {28: 5, 32: 5}),
    _llama_like("mistral", {32: 5}),
    _llama_like("qwen2", {24: 5, 28: 5, 32: 5}),
    _llama_like("qwen3", {28: 5, 36: 5}),
    _llama_like("gemma"),
    _llama_like("gemma2"),
    _llama_like("gemma3_text"),
    _llama_like("olmo2"),
    _llama_like("phi3"),
    Layout(
        model_type="phi",
        architecture="causal",
        block="model.layers.{}",
        attention="model.layers.{}.self_attn",
        mlp="model.layers.{}.mlp",
        mlp_out="model.layers.{}.mlp.fc2",
        embeddings="model.embed_tokens",
        final_norm="model.final_layernorm",
        head="lm_head",
    ),
    _bert_like("bert", "cls.predictions.decoder", "cls.predictions.bias"),
    _bert_like("roberta", "lm_head.decoder", "lm_head.bias", reserved_positions=2),
    Layout(
        model_type="distilbert",
        architecture="masked",
        block="distilbert.transformer.layer.{}",
        attention="distilbert.transformer.layer.{}.attention",
        mlp="distilbert.transformer.layer.{}.ffn",
        mlp_out="distilbert.transformer.layer.{}.ffn.lin2",
        embeddings="distilbert.embeddings.word_embeddings",
        final_norm=None,
        head="vocab_projector",
        post_norm=True,
    ),
    _t5_stack(
        "decoder",
        2,
        depth_key="num_decoder_layers",
        encoder=_t5_stack("encoder", 1, depth_key="num_layers", first_token_sink=False),
    ),
    _bart_stack("decoder", encoder=_bart_stack("encoder")),
)

LAYOUTS: Mapping[str, Layout] = {layout.model_type: layout for layout in _TABLE}

_MERGED_EXPERTS = frozenset({"deepseek_v3", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"})


def layout_for(model_type: str | None) -> Layout:
    """Look up the layout of a family.

    Raises:
        UnsupportedModelError: the family is not in the table, and why, or what is.
    """
    if not model_type:
        raise UnsupportedModelError(
            "config.json names no model_type, by which a family of models is known; save the model "
            "anew with transformers, or add the field"
        )
    if model_type in LAYOUTS:
        return LAYOUTS[model_type]
    if model_type in _MERGED_EXPERTS:
        raise UnsupportedModelError(
            f"models of type {model_type!r} are mixtures of experts, which transformers merges "
            "into one parameter from many stored tensors, so that no edit of it could be written "
            "back exactly; start from a model without experts, such as one of type 'qwen3'"
        )
    raise UnsupportedModelError(
        f"models of type {model_type!r} have no layout; known: {', '.join(sorted(LAYOUTS))} (for "
        "another family, say where its layers are: `hubedit.models.load(directory, "
        "layout=hubedit.layouts.Layout(…))`)"
    )
