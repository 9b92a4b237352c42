"""Knowledge neurons as a hubedit plugin: erase, suppress, enhance or update what holds a fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hubedit
from hubedit_kn.config import KnConfig
from hubedit_kn.rows import KnownFact

__all__ = ["Kn", "KnConfig", "KnownFact", "hubedit_methods"]


class Kn(hubedit.Method[KnownFact, KnConfig]):
    """Knowledge neurons: find the MLP neurons that an answer is owed to, and change their vectors.

    Neurons are found by integrated gradients of the answer's probability at the input of every
    layer's second MLP matrix; what they write into the residual stream is erased, scaled, or
    turned from the old answer to a new one (Dai et al. 2022).
    """

    name = "kn"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal", "masked", "seq2seq"})
    paper = (
        "Dai, Dong, Hao, Sui, Chang, Wei: Knowledge Neurons in Pretrained Transformers, ACL 2022, "
        "https://arxiv.org/abs/2104.08696"
    )
    limits = (
        "A neuron takes part in many facts: what others ask of the changed ones can change too, "
        "above all questions with the same answer.",
        "Where a fact is found does not tell where it is best changed, nor that it is nowhere "
        "else: other neurons may still hold it.",
        "What is erased is less likely after the prompts that were asked; it is not shown to be "
        "gone.",
    )

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: KnConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Find the neurons of all rows in the unedited model, then change them.

        Raises:
            RequestError: a row names an answer that the operation does not take, or lacks the one
                it does, or two rows contradict each other.
            ConfigError: settings contradict each other.
            MethodError: no neuron makes an answer likelier, or numbers are not finite.
            CollapseError: a guard stopped the edit and `run.force` is not set.
        """
        from hubedit_kn import edit

        edit.apply(model, rows, config, run)


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[Any, Any]]]:
    """Offer the method of this plugin to the host."""
    return [Kn]
