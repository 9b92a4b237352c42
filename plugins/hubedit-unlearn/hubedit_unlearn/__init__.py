"""Gradient-based unlearning as a hubedit plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import hubedit
from hubedit.layouts import Layout
from hubedit_unlearn.config import GradDiffConfig, TrainingConfig

__all__ = ["GradDiff", "GradDiffConfig", "TrainingConfig", "hubedit_methods"]


class GradDiff(hubedit.Method[hubedit.ForgetText, GradDiffConfig]):
    """Gradient difference: unlearn texts by ascent on them and descent on texts to retain.

    Trains on −CE(forget) + λ·CE(retain), the loss that Maini et al. (2024, section 4) call gradient
    difference (Liu et al. 2022), until the model gives the tokens to forget little probability. The
    ascent on a token ends at a bound, and embeddings and head are frozen unless a setting says
    otherwise.
    """

    name = "graddiff"
    kind = "unlearn"
    assurance = "approximate"
    architectures = frozenset({"causal"})
    paper = (
        "Maini, Feng, Schwarzschild, Lipton, Kolter: TOFU: A Task of Fictitious Unlearning for "
        "LLMs, COLM 2024, https://arxiv.org/abs/2401.06121; the loss is from Liu, Liu, Stone: "
        "Continual Learning and Private Unlearning, CoLLAs 2022, https://arxiv.org/abs/2203.12817"
    )
    limits = (
        "The answers are made unlikely, not shown to be gone: training on a few of the forgotten "
        "texts, or on texts like them, can bring the others back.",
        "It was measured on the weights as published: rounding them further (8 bits, 4 bits) can "
        "bring forgotten answers back.",
        "Only what the request's texts say is forgotten; what follows from them, or is told in "
        "other words, may still be answered.",
        "What resembles the forgotten texts and is not among those to retain can be lost with "
        "them.",
        "The result is not the model that would have been trained without the forgotten texts: an "
        "unusually low probability can itself tell that a text was unlearnt.",
    )

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[hubedit.ForgetText],
        config: GradDiffConfig,
    ) -> Mapping[str, int] | None:
        """LoRA's rank for each matrix of the chosen blocks; see `hubedit.Method.predict`."""
        if config.adaptation != "lora":
            return None
        found = {}
        for name, shape in shapes.items():
            layer = layout.layer_of(name)
            chosen = layer is not None and (config.layers is None or layer in config.layers)
            if len(shape) == 2 and chosen and config.modules in ("all", layout.module_of(name)):
                found[name] = config.rank
        return found

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.ForgetText],
        config: GradDiffConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train until the texts of part forget are unlikely and those of part retain as before.

        Raises:
            ConfigError: a setting does not suit the model.
            MethodError: texts to forget or to retain are missing, the model does not know what it
                shall forget, or numbers are not finite.
            CollapseError: too much of the texts to retain was lost and `run.force` is not set.
        """
        from hubedit_unlearn.losses import LOSSES
        from hubedit_unlearn.training import unlearn

        unlearn(model, rows, config, run, LOSSES[self.name](config))


@hubedit.hookimpl
def hubedit_methods() -> list[type[GradDiff]]:
    """Offer the methods of this plugin to the host."""
    return [GradDiff]
