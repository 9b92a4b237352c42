"""Fine-tuning baselines as a hubedit plugin: FT, FT-L, FT-M and LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hubedit
from hubedit.layouts import Layout
from hubedit_ft.config import FtConfig, FtLConfig, LoraConfig

__all__ = [
    "Ft",
    "FtConfig",
    "FtL",
    "FtLConfig",
    "FtM",
    "Lora",
    "LoraConfig",
    "hubedit_methods",
]

LIMITS = (
    "It is a baseline: nothing keeps what the rows do not name, and neighbours and other facts of "
    "the subjects can change with them.",
    "The prompts of the rows are learnt; other words for the same question may still get the old "
    "answer.",
    "The old facts are made less likely, not shown to be gone.",
)
PAPER = (
    "Zhu, Rawat, Zaheer, Bhojanapalli, Li, Yu, Kumar: Modifying Memories in Transformer Models, "
    "2020, https://arxiv.org/abs/2012.00363"
)


def _trained(layout: Layout, config: FtConfig) -> Sequence[str] | None:
    """Names of the weights that are trained, or None where the model's depth or biases decide."""
    if config.layers == "auto" or config.bias:
        return None
    return [layout.reader.mlp_out_weight(layer) for layer in config.layers]


class Ft(hubedit.Method[hubedit.FactEdit, FtConfig]):
    """FT: fine-tune one MLP matrix on the rows' targets, each at the end of its prompt.

    The loss is that of the published baseline of ROME: all tokens of a target are asked for at the
    prompt's last token, so that targets of several tokens are not learnt in their order.
    """

    name = "ft"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    limits = LIMITS
    paper = PAPER

    def targets(self, layout: Layout, config: FtConfig) -> Sequence[str] | None:
        """The weights that are trained, or None where the model's depth or biases decide."""
        return _trained(layout, config)

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: FtConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train until the targets are likely.

        Raises:
            ConfigError: the model has no such layer.
            UnsupportedModelError: a weight is neither a Linear's nor a Conv1D's.
            MethodError: a target has no token of its own, or numbers are not finite.
        """
        from hubedit_ft.weights import tune

        tune(model, rows, config, run, at_end=True)


class FtL(hubedit.Method[hubedit.FactEdit, FtLConfig]):
    """FT-L: as FT, with every element of the matrix kept close to where it was.

    After each step the change is clamped to a box (Zhu et al. 2020, equation 3 with the L∞ norm).
    """

    name = "ft-l"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    limits = LIMITS
    paper = PAPER

    def targets(self, layout: Layout, config: FtLConfig) -> Sequence[str] | None:
        """The weights that are trained, or None where the model's depth or biases decide."""
        return _trained(layout, config)

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: FtLConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train within the box; see `Ft.apply`, whose errors it raises."""
        from hubedit_ft.weights import tune

        tune(model, rows, config, run, at_end=True)


class FtM(hubedit.Method[hubedit.FactEdit, FtConfig]):
    """FT-M: fine-tune one MLP matrix on the rows' targets after their prompts, prompts masked.

    The loss is the ordinary one of a language model on the target's tokens, each after those before
    it (Zhang et al. 2024, section 3).
    """

    name = "ft-m"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    limits = LIMITS
    paper = (
        "Zhang, Yao, Tian, Wang, Deng, Wang et al.: A Comprehensive Study of Knowledge Editing for "
        "Large Language Models, 2024, https://arxiv.org/abs/2401.01286"
    )

    def targets(self, layout: Layout, config: FtConfig) -> Sequence[str] | None:
        """The weights that are trained, or None where the model's depth or biases decide."""
        return _trained(layout, config)

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: FtConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train until the targets are likely; see `Ft.apply`, whose errors it raises."""
        from hubedit_ft.weights import tune

        tune(model, rows, config, run, at_end=False)


class Lora(hubedit.Method[hubedit.FactEdit, LoraConfig]):
    """LoRA: fine-tune low-rank factors beside the linear modules on the rows' targets.

    The loss is that of FT-M. The factors are handed over as they are, so that the delta is small
    and is what was trained (Hu et al. 2022).
    """

    name = "lora"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    limits = LIMITS
    paper = (
        "Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: LoRA: Low-Rank Adaptation of Large "
        "Language Models, ICLR 2022, https://arxiv.org/abs/2106.09685"
    )

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[hubedit.FactEdit],
        config: LoraConfig,
    ) -> Mapping[str, int] | None:
        """The matrix of every chosen linear module changes by an update of the factors' rank.

        Not known before for models of two stacks: shapes do not tell their tables of positions from
        matrices.
        """
        if layout.encoder is not None:
            return None
        found = {}
        for name, shape in shapes.items():
            layer = layout.layer_of(name)
            chosen = layer is not None and (config.layers is None or layer in config.layers)
            part = config.modules in ("all", layout.module_of(name))
            if chosen and part and len(shape) == 2 and name.endswith(".weight"):
                found[name] = config.rank
        return found

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: LoraConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train the factors until the targets are likely.

        Raises:
            ConfigError: the model has no such layer, or the rank is too high.
            UnsupportedModelError: the chosen layers have no linear modules.
            MethodError: a target has no token of its own, or numbers are not finite.
        """
        from hubedit_ft.lora import tune

        tune(model, rows, config, run)


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[hubedit.FactEdit, Any]]]:
    """Offer the methods of this plugin to the host."""
    return [Ft, FtL, FtM, Lora]
