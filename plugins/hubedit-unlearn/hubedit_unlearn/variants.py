"""More methods of the family: stopping rules, weighted tokens, lowered logits, negation."""

from __future__ import annotations

from typing import Any

import hubedit
from hubedit_unlearn.config import (
    CeUConfig,
    JangConfig,
    LlmuConfig,
    SatImpConfig,
    TaskVectorConfig,
    UndialConfig,
    WgaConfig,
)
from hubedit_unlearn.family import LIMITS, UNBOUNDED, Unlearning


class Jang(Unlearning, hubedit.Method[hubedit.ForgetRow, JangConfig]):
    """Knowledge unlearning: gradient ascent until texts are as unknown as text never seen.

    Trains on −CE(forget) over all tokens, all forget texts in every step, until memorisation
    accuracy and extraction likelihood are below those of the holdout rows (or of the published
    thresholds). Deviation: extraction is measured on some prefixes of each text.
    """

    name = "jang"
    limits = (
        *LIMITS,
        UNBOUNDED,
        "Many texts at once lose more than a few at a time do.",
    )
    paper = (
        "Jang, Yoon, Yang, Cha, Lee, Logeswaran, Seo: Knowledge Unlearning for Mitigating Privacy "
        "Risks in Language Models, ACL 2023, https://arxiv.org/abs/2210.01504"
    )


class Llmu(Unlearning, hubedit.Method[hubedit.ForgetRow, LlmuConfig]):
    """LLMU: ascent on answers, random answers in their place, and all else as before.

    Trains on ε₁·(−CE of the answers) + ε₂·(CE of answers to other questions) + ε₃·CE(p, p₀) on
    normal texts. Deviations: what is published differs from its code, whose stop never comes and
    whose random answers are scored with their question; here they are as the paper has them.
    """

    name = "llmu"
    limits = (
        *LIMITS,
        "It aims at harmless answers and not at sensible ones: expect nonsense in their place.",
    )
    paper = (
        "Yao, Xu, Liu: Large Language Model Unlearning, NeurIPS 2024, "
        "https://arxiv.org/abs/2310.10683"
    )


class Undial(Unlearning, hubedit.Method[hubedit.ForgetRow, UndialConfig]):
    """UNDIAL: distil the model's own logits with those of the forgotten tokens lowered.

    Trains on the cross-entropy with softmax(z₀ − β·onehot) at the forget tokens, z₀ being the
    logits of the model before, computed once and kept as the states they are made of. Deviation:
    prompt and padding have no part in it.
    """

    name = "undial"
    paper = (
        "Dong, Lin, Belkin, Huerta, Vulić: UNDIAL: Self-Distillation with Adjusted Logits for "
        "Robust Unlearning in Large Language Models, NAACL 2025, https://arxiv.org/abs/2402.10052"
    )


class Wga(Unlearning, hubedit.Method[hubedit.ForgetRow, WgaConfig]):
    """WGA: gradient ascent in which tokens count by their probability, so that it fades.

    Trains on −p^β·CE of the forget tokens, the weight without gradient, with a term on the retain
    texts.
    """

    name = "wga"
    paper = (
        "Wang, Zhou, Zhou, Shin, Han, Weinberger: Rethinking LLM Unlearning Objectives: A Gradient "
        "Perspective and Go Beyond, ICLR 2025, https://arxiv.org/abs/2502.19301"
    )


class SatImp(Unlearning, hubedit.Method[hubedit.ForgetRow, SatImpConfig]):
    """SatImp: gradient ascent weighted by how saturated and how important each token is.

    Trains on −p^β₁·(1 − p)^β₂·CE of the forget tokens, the weight without gradient, with a term on
    the retain texts.
    """

    name = "satimp"
    paper = (
        "Yang, Wang, Huang, Liu, Zhang, Han: Exploring Criteria of Loss Reweighting to Enhance LLM "
        "Unlearning, ICML 2025, https://arxiv.org/abs/2505.11953"
    )


class CeU(Unlearning, hubedit.Method[hubedit.ForgetRow, CeUConfig]):
    """CE-U: learn what the model would say if the forgotten token were out of the question.

    Trains on the cross-entropy with the model's own distribution without the token, held fixed in
    each step. The first scored tokens of each text are left alone.
    """

    name = "ceu"
    paper = "Yang: CE-U: Cross Entropy Unlearning, 2025, https://arxiv.org/abs/2503.01224"


class TaskVector(Unlearning, hubedit.Method[hubedit.ForgetRow, TaskVectorConfig]):
    """Task-vector negation: learn the forget texts once more, and go as far the other way.

    θ₀ − a (θ − θ₀), θ being trained on CE(forget) from θ₀. Deviation: a is the smallest of a few
    that reaches `forget_target`, where none is given.
    """

    name = "taskvector"
    paper = (
        "Ilharco, Ribeiro, Wortsman, Gururangan, Schmidt, Hajishirzi, Farhadi: Editing Models with "
        "Task Arithmetic, ICLR 2023, https://arxiv.org/abs/2212.04089"
    )


VARIANTS: tuple[type[hubedit.Method[Any, Any]], ...] = (
    Jang,
    Llmu,
    Undial,
    Wga,
    SatImp,
    CeU,
    TaskVector,
)
