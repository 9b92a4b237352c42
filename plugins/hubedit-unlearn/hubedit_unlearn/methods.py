"""The methods, each with its source and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hubedit
from hubedit.layouts import Layout
from hubedit_unlearn.config import (
    DpoConfig,
    GaConfig,
    GradDiffConfig,
    IdkConfig,
    KlConfig,
    NpoConfig,
    RmuConfig,
    SimNpoConfig,
    TrainingConfig,
)
from hubedit_unlearn.family import LIMITS, UNBOUNDED, Unlearning
from hubedit_unlearn.variants import VARIANTS

TOFU = (
    "Maini, Feng, Schwarzschild, Lipton, Kolter: TOFU: A Task of Fictitious Unlearning for "
    "LLMs, COLM 2024, https://arxiv.org/abs/2401.06121"
)


class Ga(Unlearning, hubedit.Method[hubedit.ForgetRow, GaConfig]):
    """Gradient ascent: unlearn texts by making their tokens less likely, and nothing else.

    Trains on −CE(forget), a mean over labelled tokens. Deviation: training ends at `forget_target`
    and not after a fixed number of epochs.
    """

    name = "ga"
    limits = (*LIMITS, UNBOUNDED)
    paper = TOFU


class GradDiff(Unlearning, hubedit.Method[hubedit.ForgetRow, GradDiffConfig]):
    """Gradient difference: unlearn texts by ascent on them and descent on texts to retain.

    Trains on −CE(forget) + λ·CE(retain), the loss that Maini et al. (2024, section 4) call gradient
    difference (Liu et al. 2022), until the model gives the tokens to forget little probability. The
    ascent on a token ends at a bound, and embeddings and head are frozen unless a setting says
    otherwise.
    """

    name = "graddiff"
    paper = (
        f"{TOFU}; the loss is from Liu, Liu, Stone: Continual Learning and Private Unlearning, "
        "CoLLAs 2022, https://arxiv.org/abs/2203.12817"
    )


class Kl(Unlearning, hubedit.Method[hubedit.ForgetRow, KlConfig]):
    """KL minimisation: unlearn texts by ascent on them, holding what is said of texts to retain.

    Trains on −CE(forget) + KL(p₀ ‖ p) on the retain texts, p₀ being the model before. What p₀ says
    is kept as the states before its head, computed once. Deviation: padding is no part of the mean.
    """

    name = "kl"
    limits = (*LIMITS, UNBOUNDED)
    paper = TOFU


class Idk(Unlearning, hubedit.Method[hubedit.ForgetRow, IdkConfig]):
    """IDK: unlearn answers by training on refusals in their place, beside texts to retain.

    Trains on the cross-entropy of forget questions with refusals, each drawn anew, and of as many
    retain texts, in one mean over tokens. A row's own refusals are used where it has some.
    """

    name = "idk"
    limits = (
        *LIMITS,
        "A refusal is learnt on top of the answer, which the model may still find likely.",
    )
    paper = TOFU


class Dpo(Unlearning, hubedit.Method[hubedit.ForgetRow, DpoConfig]):
    """DPO: unlearn answers by preferring refusals to them, relative to the model before.

    Trains on −(2/β) log σ(β [log p/p₀ of the refusal − log p/p₀ of the answer]), with a term on
    the retain texts. log p₀ is computed once and kept. Deviations: a question keeps the refusals
    drawn for it at the start, and the factor 2/β is that of NPO's authors.
    """

    name = "dpo"
    paper = (
        f"{TOFU}; the loss is from Rafailov, Sharma, Mitchell, Ermon, Manning, Finn: Direct "
        "Preference Optimization, NeurIPS 2023, https://arxiv.org/abs/2305.18290"
    )


class Npo(Unlearning, hubedit.Method[hubedit.ForgetRow, NpoConfig]):
    """NPO: unlearn texts as the worse half of a preference, a brake on gradient ascent.

    Trains on −(2/β) log σ(−β log p/p₀) of the forget texts, whose gradient fades for texts that are
    forgotten already, with a term on the retain texts. log p₀ is computed once and kept.
    """

    name = "npo"
    paper = (
        "Zhang, Lin, Bai, Mei: Negative Preference Optimization: From Catastrophic Collapse to "
        "Effective Unlearning, COLM 2024, https://arxiv.org/abs/2404.05868"
    )


class SimNpo(Unlearning, hubedit.Method[hubedit.ForgetRow, SimNpoConfig]):
    """SimNPO: NPO without a reference, on log-probabilities divided by the text's length.

    Trains on −(2/β) log σ(β (NLL/T − δ)) of the forget texts, with a term on the retain texts.
    """

    name = "simnpo"
    paper = (
        "Fan, Liu, Lin, Jia, Zhang, Mei, Liu: Simplicity Prevails: Rethinking Negative Preference "
        "Optimization for LLM Unlearning, 2024, https://arxiv.org/abs/2410.07163"
    )


class Rmu(Unlearning, hubedit.Method[hubedit.ForgetRow, RmuConfig]):
    """RMU: drive the states of forget texts to a random direction, and hold those of the others.

    Trains the second MLP matrices of three blocks on ‖h − c·u‖² of the forget texts and
    α·‖h − h₀‖² of the retain texts, h being states after one block and h₀ those of the model
    before, computed once. Deviation: padding is no part of the means, and c goes with the norm of
    the states.
    """

    name = "rmu"
    limits = (
        *LIMITS,
        "It works like noise in the forget texts' states: training on little unrelated text, or "
        "taking one direction out of the states, can undo it.",
    )

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[hubedit.ForgetRow],
        config: TrainingConfig,
    ) -> Mapping[str, int] | None:
        """As the others, where the settings name the blocks, which else go with the depth."""
        return None if config.layers is None else super().predict(layout, shapes, rows, config)

    paper = (
        "Li, Pan, Gopal, Yue, Berrios, Gatti et al.: The WMDP Benchmark: Measuring and Reducing "
        "Malicious Use With Unlearning, ICML 2024, https://arxiv.org/abs/2403.03218"
    )


METHODS: tuple[type[hubedit.Method[Any, Any]], ...] = (
    Ga,
    GradDiff,
    Kl,
    Idk,
    Dpo,
    Npo,
    SimNpo,
    Rmu,
    *VARIANTS,
)
