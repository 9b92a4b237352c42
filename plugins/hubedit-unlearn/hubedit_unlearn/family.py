"""What the methods of the family have in common: how they are applied, what they can promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import hubedit
from hubedit.layouts import Layout
from hubedit_unlearn.config import TrainingConfig

LIMITS = (
    "The answers are made unlikely, not shown to be gone: training on a few of the forgotten "
    "texts, or on texts like them, can bring the others back.",
    "It was measured on the weights as published: rounding them further (8 bits, 4 bits) can "
    "bring forgotten answers back.",
    "Only what the request's texts say is forgotten; what follows from them, or is told in "
    "other words, may still be answered.",
    "What resembles the forgotten texts and is not among those to retain can be lost with them.",
    "The result is not the model that would have been trained without the forgotten texts: an "
    "unusually low probability can itself tell that a text was unlearnt.",
)

UNBOUNDED = "The loss has no minimum: without its stop it takes the model apart."


class Unlearning:
    """A method that trains on a loss of the family until the forget texts are unlikely."""

    name: ClassVar[str]
    kind: ClassVar[Literal["edit", "unlearn"]] = "unlearn"
    assurance: ClassVar[Literal["exact", "certified", "approximate", "guardrail"]] = "approximate"
    architectures: ClassVar[frozenset[str] | set[str]] = frozenset({"causal"})
    limits: ClassVar[Sequence[str]] = LIMITS

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[hubedit.ForgetRow],
        config: TrainingConfig,
    ) -> Mapping[str, int] | None:
        """LoRA's rank for each matrix of the chosen blocks; see `hubedit.Method.predict`."""
        if config.adaptation != "lora":
            return None
        from hubedit_unlearn.choice import belongs

        found = {}
        for name, shape in shapes.items():
            layer = layout.layer_of(name)
            chosen = layer is not None and (config.layers is None or layer in config.layers)
            if len(shape) == 2 and chosen and belongs(layout, name, config.modules):
                found[name] = config.rank
        return found

    @classmethod
    def telling(cls, config: TrainingConfig) -> bool:
        """Whether embeddings and head are trained; see `hubedit.Method.telling`."""
        return config.train_embeddings

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.ForgetRow],
        config: TrainingConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Train until the texts of part forget are unlikely and those of part retain as before.

        Raises:
            ConfigError: a setting does not suit the model.
            MethodError: rows that the method needs are missing, the model does not know what it
                shall forget, or numbers are not finite.
            CollapseError: too much of the texts to retain was lost and `run.force` is not set.
        """
        from hubedit_unlearn.training import unlearn

        unlearn(self.name, model, rows, config, run)
