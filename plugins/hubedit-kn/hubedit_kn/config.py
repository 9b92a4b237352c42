"""Every setting of the method, with its default and why it is what it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import hubedit

Operation = Literal["erase", "suppress", "enhance", "update"]


class KnConfig(hubedit.Config):
    """What is done to the neurons, which prompts and which place find them, and how many."""

    operation: Operation = Field(
        "update",
        description="what becomes of the neurons' output vectors: `erase` replaces them, "
        "`suppress` and `enhance` scale them, `update` takes the old answer out and adds the new; "
        "`erase` and `suppress` take rows that name a true_target alone, the others a target",
    )
    position: Literal["answer", "subject"] | None = Field(
        None,
        description="where the neurons are asked about: `answer`, as published, is the place that "
        "predicts the answer; `subject` the subject's last token, in the stack that reads the "
        "prompt (deviation). By default `answer` for update, else `subject`",
    )
    steps: int = Field(
        20, ge=1, description="steps of the integral from no activation to the whole, as published"
    )
    threshold: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="a prompt's neurons are those above this share of its largest attribution, as "
        "published",
    )
    sharing: float = Field(
        0.7,
        ge=0,
        lt=1,
        description="a fact's neurons are found by more than this share of its prompts; moved by "
        "0.05 until there are between `fewest` and `most`, as published",
    )
    fewest: int = Field(2, ge=1, description="neurons of a fact, at least, as published")
    most: int = Field(5, ge=1, description="neurons of a fact, at most, as published")
    paraphrases: bool = Field(
        False,
        description="whether a row's paraphrases also find its neurons, as published; they then "
        "no longer test the edit",
    )
    enough: float | None = Field(
        0.6,
        gt=0,
        le=1,
        description="after the published neurons others follow in the order of their attribution "
        "(deviation): for erase and suppress until the answer's probability has fallen by this "
        "share, for update until the new answer's has reached it; null, as published: no others",
    )
    max_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="guard: if this share of all neurons is not enough for a fact, it does not "
        "lie in few of them",
    )
    erase_with: Literal["zero", "unknown"] = Field(
        "zero", description="what erase writes: zeros, or the output embedding of the unknown token"
    )
    factor: float | None = Field(
        None,
        ge=0,
        description="what suppress and enhance scale by; published, of activations: 0 and 2",
    )
    old_weight: float = Field(
        1.0, ge=0, description="update: λ₁, how much of the old answer's embedding is subtracted"
    )
    new_weight: float = Field(
        2.0,
        ge=0,
        description="update: λ₂, how much of the new answer's embedding is added (published: 8)",
    )
    batch: int = Field(64, ge=1, description="texts in one pass through the model")
