"""Rank-One Model Editing (ROME) as a hubedit plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import hubedit
from hubedit.layouts import Layout
from hubedit_rome.config import RomeConfig

__all__ = ["Rome", "RomeConfig", "hubedit_methods"]


class Rome(hubedit.Method[hubedit.FactEdit, RomeConfig]):
    """Rank-One Model Editing: rewrite one fact in one MLP matrix of a language model.

    The second matrix of an MLP is read as an associative memory from keys (its inputs) to values
    (its outputs). For each row the value that makes the model say the target is found by gradient
    descent, and a rank-one update lets the subject's key recall it while the keys of other texts
    are disturbed least (Meng et al. 2022, equations 2 to 4). Rows are made one after the other,
    each on the model that the rows before it left.

    The paper edits causal models. For masked and seq2seq models this is hubedit's own port: the
    matrix is the encoder's, the key is read with the masks in place, and the target is predicted at
    them, or by the decoder.
    """

    name = "rome"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    paper = (
        "Meng, Bau, Andonian, Belinkov: Locating and Editing Factual Associations in GPT, "
        "NeurIPS 2022, https://arxiv.org/abs/2202.05262"
    )
    limits = (
        "The fact is rewritten where it is asked about the subject; what follows from it, and the "
        "reverse question, do not change with it.",
        "For masked and seq2seq models the method is hubedit's own port of what was published for "
        "causal ones.",
        "Other facts about the same subject can change; `preserve=attributes` makes that rarer.",
        "The old fact is overwritten for the prompts that reach it, not shown to be gone: other "
        "layers may still hold it.",
        "Many rows in one matrix wear each other out; beyond some tens of rows use a method made "
        "for many facts.",
    )

    def targets(self, layout: Layout, config: RomeConfig) -> Sequence[str] | None:
        """The one weight that is changed, or None while the layer is left to the model's depth."""
        return None if config.layer == "auto" else [layout.reader.mlp_out_weight(config.layer)]

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[hubedit.FactEdit],
        config: RomeConfig,
    ) -> Mapping[str, int] | None:
        """One weight changes, by a rank of one for each row."""
        layer, layout = config.layer, layout.reader
        if layer == "auto":
            numbers = [layout.layer_of(name) for name in shapes]
            depth = max((number for number in numbers if number is not None), default=0) + 1
            layer = layout.edit_layer(SimpleNamespace(**{layout.depth_key: depth}))
        return {layout.mlp_out_weight(layer): len(rows)}

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: RomeConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Rewrite each row's fact by one rank-one update of one weight.

        Raises:
            ConfigError: the model has no such layer.
            UnsupportedModelError: the weight is neither a Linear's nor a Conv1D's.
            MethodError: the statistic cannot be computed, or numbers are not finite.
            CollapseError: a guard stopped the edit and `run.force` is not set.
        """
        from hubedit_rome.edit import apply

        apply(model, rows, config, run)


@hubedit.hookimpl
def hubedit_methods() -> list[type[Rome]]:
    """Offer ROME to the host."""
    return [Rome]
