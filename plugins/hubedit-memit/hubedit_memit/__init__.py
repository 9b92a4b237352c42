"""Editing many facts at once as a hubedit plugin: MEMIT, EMMET and AlphaEdit.

The papers edit causal models. For seq2seq models, and EMMET for masked ones, this is hubedit's own
port: the matrices are the encoder's, and the target is predicted at the masks or by the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import hubedit
from hubedit.layouts import Layout
from hubedit_memit.config import AlphaEditConfig, EmmetConfig, ManyFactsConfig, MemitConfig
from hubedit_memit.conflicts import grouped, without_repeats
from hubedit_memit.layers import default_layers

__all__ = [
    "AlphaEdit",
    "AlphaEditConfig",
    "Emmet",
    "EmmetConfig",
    "Memit",
    "MemitConfig",
    "hubedit_methods",
]

LIMITS = (
    "For masked and seq2seq models the method is hubedit's own port of what was published for "
    "causal ones.",
    "The facts are rewritten where they are asked about their subjects; what follows from them, "
    "and the reverse questions, do not change with them.",
    "Other facts about the same subjects can change.",
    "The old facts are overwritten for the prompts that reach them, not shown to be gone: other "
    "layers may still hold them.",
    "The more rows are written at once, the less well each is followed in other words, and the "
    "more of what is near them moves.",
)


class _ManyFacts:
    """What the three methods say alike of what they will change."""

    single: ClassVar[bool] = False
    """Whether one layer is edited where the settings name none."""

    def targets(self, layout: Layout, config: ManyFactsConfig) -> Sequence[str] | None:
        """The weights that are changed, or None while the layers are left to the model's depth."""
        if config.layers == "auto":
            return None
        return [layout.reader.mlp_out_weight(layer) for layer in config.layers]

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[hubedit.FactEdit],
        config: ManyFactsConfig,
    ) -> Mapping[str, int] | None:
        """Every edited layer's weight changes, by a rank of one for each key of each batch."""
        rows, layers, layout = without_repeats(rows), config.layers, layout.reader
        if layers == "auto":
            numbers = [layout.layer_of(name) for name in shapes]
            depth = max((number for number in numbers if number is not None), default=0) + 1
            layers = default_layers(
                layout, SimpleNamespace(**{layout.depth_key: depth}), cls.single
            )
        size = config.batch or max(len(rows), 1)
        counts = [
            len(grouped(rows[start : start + size], config.subjects == "together"))
            for start in range(0, len(rows), size)
        ]
        names = [layout.mlp_out_weight(layer) for layer in layers]
        return {
            name: sum(min([count, *shapes.get(name, ())]) for count in counts) for name in names
        }


class Memit(_ManyFacts, hubedit.Method[hubedit.FactEdit, MemitConfig]):
    """MEMIT: write many facts at once into the MLP matrices of several layers.

    For each row the state z* of the last layer that makes the model say the target is found by
    gradient descent. Then, layer by layer, the weights are changed by least squares so that the
    rows' keys bring their share of the way to z*, while other keys, whose second moment C is known,
    are answered as before (Meng et al. 2023).
    """

    name = "memit"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "seq2seq"})
    limits = LIMITS
    paper = (
        "Meng, Sharma, Andonian, Belinkov, Bau: Mass-Editing Memory in a Transformer, ICLR 2023, "
        "https://arxiv.org/abs/2210.07229"
    )

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: MemitConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Write all rows by one low-rank update of each layer's weight and batch.

        Raises:
            RequestError: two rows contradict each other.
            ConfigError: the model has no such layer.
            UnsupportedModelError: a weight is neither a Linear's nor a Conv1D's.
            MethodError: a statistic cannot be computed, or numbers are not finite.
            CollapseError: a guard stopped the edit and `run.force` is not set.
        """
        from hubedit_memit import edit, solvers

        edit.apply(model, rows, config, run, solvers.of_memit(config), self.single)


class Emmet(_ManyFacts, hubedit.Method[hubedit.FactEdit, EmmetConfig]):
    """EMMET: write many facts at once into one MLP matrix, each with (almost) equality.

    ROME's objective for a batch: the keys of other texts are disturbed least under the constraint
    that every row's key is answered with its value (Gupta et al. 2024).
    """

    name = "emmet"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    limits = LIMITS
    single = True
    paper = (
        "Gupta, Sajnani, Anumanchipalli: A Unified Framework for Model Editing, EMNLP Findings "
        "2024, https://arxiv.org/abs/2403.14236"
    )

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: EmmetConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Write all rows; see `Memit.apply`, whose errors it raises."""
        from hubedit_memit import edit, solvers

        edit.apply(model, rows, config, run, solvers.of_emmet(config), self.single)


class AlphaEdit(_ManyFacts, hubedit.Method[hubedit.FactEdit, AlphaEditConfig]):
    """AlphaEdit: write many facts at once along directions that other keys do not use.

    MEMIT's update projected onto the null space of the keys' second moment, so that what is known
    is answered as before, with the keys of earlier batches kept as well (Fang et al. 2025). Those
    of the edits below in the stack count too: each edit keeps its own beside it.
    """

    name = "alphaedit"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "seq2seq"})
    limits = LIMITS
    paper = (
        "Fang, Jiang, Wang, Ma, Jie, Wang, He, Chua: AlphaEdit: Null-Space Constrained Knowledge "
        "Editing for Language Models, ICLR 2025, https://arxiv.org/abs/2410.02355"
    )

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: AlphaEditConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Write all rows; see `Memit.apply`, whose errors it raises."""
        from hubedit_memit import edit, solvers

        edit.apply(
            model, rows, config, run, solvers.of_alphaedit(config), self.single, sequential=True
        )


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[hubedit.FactEdit, Any]]]:
    """Offer the methods of this plugin to the host."""
    return [Memit, Emmet, AlphaEdit]
