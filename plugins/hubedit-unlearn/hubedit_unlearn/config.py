"""The settings of each method: how it trains, what may change, when it ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import hubedit


class TrainingConfig(hubedit.Config):
    """What every method of the family can be told: how it trains, what it may change, when it ends.

    Batches of forget and retain texts are drawn side by side, each in an order of its own.
    """

    steps: int = Field(
        400, ge=1, description="optimiser steps at most; it ends once the texts are forgotten"
    )
    epochs: int | None = Field(
        None, ge=1, description="passes over the forget texts at most, instead of steps"
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="of AdamW; by default 0.032 over the model's width (7.8e-6 at 4096), since the "
        "best rate goes with 1/width (arXiv:2203.03466), and ten times that for LoRA",
    )
    warmup: int = Field(0, ge=0, description="first steps, in which the rate rises linearly")
    decay: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="the rate after the warm-up; `linear` and `cosine` fall to 0 at the last step",
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW")
    max_gradient: float = Field(
        1.0, gt=0, description="gradients are scaled down to this norm over all trained weights"
    )
    batch_size: int = Field(
        32, ge=1, description="forget texts, and retain texts, in memory at once"
    )
    accumulation: int = Field(
        1, ge=1, description="batches in one optimiser step; the loss is that of one large batch"
    )
    full_batch: bool = Field(
        False,
        description="every step takes all forget texts, in as many batches as that needs, so that "
        "a step is an epoch",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of matrix products while training; weights, losses and the optimiser's state "
        "stay in float32",
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass instead of keeping them"
    )
    checkpoint_every: int = Field(
        0,
        ge=0,
        description="steps between checkpoints, from which a killed run goes on to the same bytes; "
        "each takes three times the trained weights on disk; 0 for none",
    )
    labels: Literal["answer", "text"] = Field(
        "answer",
        description="the tokens of a forget text that are unlearnt: those of its answer where the "
        "row names one, or all of it",
    )
    retain_labels: Literal["answer", "text"] = Field(
        "answer", description="likewise, the tokens of a retain text that are held"
    )
    end_of_text: bool = Field(
        True,
        description="the end-of-text token after the answer to a question belongs to the answer",
    )
    max_tokens: int = Field(
        512, ge=2, description="longer texts are cut into pieces of so many tokens"
    )
    layers: tuple[int, ...] | None = Field(
        None, description="blocks that may change, counted from 0; by default all"
    )
    modules: Literal["all", "mlp", "attention", "mlp_out"] = Field(
        "all",
        description="which part of them; `all` includes their layer norms when adaptation is full, "
        "`mlp_out` is the second matrix of the MLP alone",
    )
    train_embeddings: bool = Field(
        False,
        description="also train embeddings and head, whose changed rows tell which tokens were "
        "forgotten",
    )
    adaptation: Literal["full", "lora"] = Field(
        "full",
        description="train the weights themselves, or low-rank factors beside the linear modules "
        "(LoRA, arXiv:2106.09685), which make a small delta",
    )
    rank: int = Field(8, ge=1, description="of LoRA's factors")
    alpha: int = Field(16, ge=1, description="LoRA scales its factors' product by alpha / rank")
    forget_target: float | None = Field(
        0.1,
        gt=0,
        le=1,
        description="training ends when the unlearnt tokens have a mean probability below this, on "
        "the weights as they are stored; null to take all steps",
    )
    evaluate_every: int = Field(5, ge=1, description="steps between looks at that probability")
    evaluation_texts: int = Field(
        256, ge=1, description="forget texts, and retain texts, looked at, at most"
    )
    retain_stop: float | None = Field(
        None,
        ge=1,
        description="training also ends at the first look at which the perplexity of the retain "
        "texts has grown more than so many times",
    )
    retain_ceiling: float | None = Field(
        1.05,
        ge=1,
        description="guard: largest growth of the perplexity of the retain texts; null for none",
    )

    @property
    def negates(self) -> bool:
        """Whether what was trained is taken away afterwards."""
        return False


class GradDiffConfig(TrainingConfig):
    """Settings of gradient difference.

    The published loss is `retain_weight=1 forget_cap=null`; TOFU trains five epochs at a rate of
    1e-5 with a warm-up and a decay to zero, and stops at no measure.
    """

    retain_weight: float = Field(
        5.0,
        gt=0,
        description="weight λ of the retain loss (deviation: 1 as published loses much of what is "
        "retained before all is forgotten)",
    )
    forget_cap: float | None = Field(
        3.0,
        gt=0,
        description="a token whose loss exceeds this many nats is pushed no further (deviation: "
        "the published loss has no lower bound); null for none",
    )


class GaConfig(TrainingConfig):
    """Settings of gradient ascent."""


class KlConfig(TrainingConfig):
    """Settings of KL minimisation."""

    retain_labels: Literal["answer", "text"] = Field(
        "text", description="the tokens of a retain text at which the distributions are compared"
    )
    retain_weight: float = Field(
        1.0, gt=0, description="weight of the divergence on the retain texts"
    )


class IdkConfig(TrainingConfig):
    """Settings of IDK, training on refusals."""


class RetainingConfig(TrainingConfig):
    """Settings of a method that can be joined with a loss on the retain texts."""

    retain: Literal["none", "nll", "kl"] = Field(
        "nll",
        description="loss on the retain texts: none, their cross-entropy, or the divergence from "
        "what the model said before training",
    )
    retain_weight: float = Field(1.0, gt=0, description="weight of that loss")


class DpoConfig(RetainingConfig):
    """Settings of direct preference optimisation towards refusals."""

    beta: float = Field(0.1, gt=0, description="inverse temperature β of the preference")
    refusals: int = Field(
        1,
        ge=1,
        description="refusals drawn for each question, each scored once by the model before "
        "training (deviation: published code draws anew at every access)",
    )


class NpoConfig(RetainingConfig):
    """Settings of negative preference optimisation."""

    beta: float = Field(
        0.1,
        gt=0,
        description="inverse temperature β; the loss is gradient ascent as β goes to 0. It is over "
        "summed log-probabilities, so take less for long texts",
    )


class SimNpoConfig(RetainingConfig):
    """Settings of SimNPO."""

    beta: float = Field(4.5, gt=0, description="inverse temperature β")
    delta: float = Field(
        0.0, description="margin δ: the mean cross-entropy in nats around which the loss turns"
    )
    forget_weight: float = Field(0.125, gt=0, description="weight γ of the forget loss")


class RmuConfig(TrainingConfig):
    """Settings of RMU, representation misdirection for unlearning."""

    layer: int | None = Field(
        None,
        ge=0,
        description="block l after which states are steered; by default 7/32 of the depth (7 of "
        "32), but at least 2",
    )
    layers: tuple[int, ...] | None = Field(
        None, description="blocks that may change; by default l−2, l−1 and l"
    )
    modules: Literal["all", "mlp", "attention", "mlp_out"] = Field(
        "mlp_out", description="which part of them: the second matrix of the MLP as published"
    )
    steering: float | None = Field(
        None,
        gt=0,
        description="coefficient c, the norm to which states are driven; by default four times the "
        "median norm that they have on the forget texts",
    )
    retain_weight: float = Field(100.0, gt=0, description="weight α of the retain loss")
    labels: Literal["answer", "text"] = Field(
        "answer", description="the tokens by which forgetting is judged; states of all are steered"
    )


class JangConfig(TrainingConfig):
    """Settings of knowledge unlearning; a step is an epoch over all forget texts."""

    full_batch: bool = Field(True, description="every step takes all forget texts, as published")
    labels: Literal["answer", "text"] = Field(
        "text", description="the tokens of a forget text that are unlearnt"
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    steps: int = Field(20, ge=1, description="passes over the forget texts at most")
    forget_target: float | None = Field(
        None, gt=0, le=1, description="a mean probability of the unlearnt tokens that also ends it"
    )
    evaluate_every: int = Field(1, ge=1, description="steps between looks")
    accuracy_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="memorisation accuracy below which it ends; by default that of the holdout "
        "rows, else 0.2994, the published one of a model of 125 million parameters",
    )
    likelihood_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="extraction likelihood below which it ends; by default that of the holdout "
        "rows, else 0.0499",
    )
    extracted: int = Field(
        10, ge=1, description="length n of the runs of tokens that extraction is counted in"
    )
    prefixes: int = Field(
        8,
        ge=1,
        description="prefixes of each text that are continued for it, spread evenly (deviation: "
        "published code continues all)",
    )


class LlmuConfig(TrainingConfig):
    """Settings of LLMU."""

    forget_weight: float = Field(0.5, ge=0, description="ε₁, weight of the ascent on answers")
    random_weight: float = Field(1.0, ge=0, description="ε₂, weight of random answers")
    normal_weight: float = Field(
        1.0, ge=0, description="ε₃, weight of staying as before on normal texts"
    )
    random_answers: int = Field(
        5, ge=1, description="answers drawn in each step for all questions in it"
    )
    highest_loss: float = Field(
        100.0, gt=0, description="mean cross-entropy of the forget answers in nats that ends it"
    )


class UndialConfig(RetainingConfig):
    """Settings of UNDIAL."""

    retain: Literal["none", "nll", "kl"] = Field("none", description="loss on the retain texts")
    beta: float = Field(
        10.0, ge=0, description="how much the logit of each forgotten token is lowered"
    )


class WgaConfig(RetainingConfig):
    """Settings of weighted gradient ascent."""

    beta: float = Field(
        1.0, ge=0, description="power β of the token's probability that weighs its ascent"
    )


class SatImpConfig(RetainingConfig):
    """Settings of SatImp."""

    saturation: float = Field(5.0, ge=0, description="power β₁ of the token's probability p")
    importance: float = Field(1.0, ge=0, description="power β₂ of 1 − p")
    retain_weight: float = Field(1.0, gt=0, description="weight of the loss on the retain texts")
    forget_weight: float = Field(0.1, gt=0, description="weight of the ascent")


class CeUConfig(TrainingConfig):
    """Settings of CE-U."""

    skip_first: int = Field(
        1, ge=0, description="scored tokens at the start of each text that are left alone"
    )


class TaskVectorConfig(TrainingConfig):
    """Settings of task-vector negation."""

    epochs: int | None = Field(
        5, ge=1, description="passes over the forget texts in which they are learnt once more"
    )
    decay: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="the rate after the warm-up"
    )
    scale: float | None = Field(
        None,
        gt=0,
        description="how far to go back along what was learnt; by default the first of ½, 1, 2, 4, "
        "8 and 16 that reaches forget_target, while the retain texts stay within retain_ceiling",
    )

    @property
    def negates(self) -> bool:
        """Whether what was trained is taken away afterwards."""
        return True
