"""Every setting of the methods, with its default and why it is what it is."""

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
    decay: Literal["constant", "linear"] = Field(
        "constant", description="the rate after the warm-up; `linear` falls to 0 at the last step"
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    max_gradient: float = Field(
        1.0, gt=0, description="gradients are scaled down to this norm over all trained weights"
    )
    batch_size: int = Field(
        32, ge=1, description="forget texts, and retain texts, in memory at once"
    )
    accumulation: int = Field(
        1, ge=1, description="batches in one optimiser step; the loss is that of one large batch"
    )
    labels: Literal["answer", "text"] = Field(
        "answer",
        description="the tokens of a forget text that are unlearnt: those of its target where the "
        "row names a prompt and a target, or all of it",
    )
    retain_labels: Literal["answer", "text"] = Field(
        "answer", description="likewise, the tokens of a retain text that are held"
    )
    max_tokens: int = Field(
        512, ge=2, description="longer texts are cut into pieces of so many tokens"
    )
    layers: tuple[int, ...] | None = Field(
        None, description="blocks that may change, counted from 0; by default all"
    )
    modules: Literal["all", "mlp", "attention"] = Field(
        "all",
        description="which part of them; `all` includes their layer norms when adaptation is full",
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
    forget_target: float = Field(
        0.1,
        gt=0,
        le=1,
        description="training ends when the unlearnt tokens have a mean probability below this, on "
        "the weights as they are stored",
    )
    evaluate_every: int = Field(5, ge=1, description="steps between looks at that probability")
    evaluation_texts: int = Field(
        256, ge=1, description="forget texts, and retain texts, looked at, at most"
    )
    retain_ceiling: float = Field(
        1.05, ge=1, description="guard: largest growth of the perplexity of the retain texts"
    )


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
