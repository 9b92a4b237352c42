"""Every setting of ROME, with its default and why it is what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

import hubedit
from hubedit_rome.auto import OneLayer

PUBLISHED: Mapping[str, Any] = {
    "keys": "original",
    "bare_weight": None,
    "clamp": "mlp",
    "clamp_factor": 4,
    "weight_decay": 0.5,
    "learning_rate": 0.5,
    "stop_loss": 0.05,
    "steps": 20,
    "ridge": 0,
    "skip_first": False,
}
"""The published form for GPT-2 XL: every setting whose default is another."""


class RomeConfig(hubedit.Config):
    """Settings of ROME.

    Defaults follow the paper and its published code except where a description says *deviation*.
    `PUBLISHED` is the published form.
    """

    layer: OneLayer = Field(
        "auto",
        description="block to edit, from 0; `auto`: the published one for this family and depth, "
        "else the one that a stored trace names (`hubedit trace`), else a third of the way up",
    )
    keys: Literal["averaged", "original"] = Field(
        "averaged",
        description="the key that the update is made for: `averaged` takes the mean over the "
        "prefixes everywhere (deviation: R-ROME, arXiv:2403.07175); `original` takes the mean for "
        "the direction and the bare prompt for the denominator, as published",
    )
    bare_weight: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="weight of the bare prompt in the mean key, as MEMIT weighs it (deviation); "
        "null: as one among the prefixed ones, as published",
    )
    prefixes: tuple[tuple[int, int], ...] = Field(
        ((5, 10), (10, 10)),
        description="random beginnings put before the prompt, as pairs (tokens, how many); the "
        "bare prompt is always used too",
    )
    prefix_top_k: int = Field(5, ge=1, description="tokens to choose from when one is sampled")
    steps: int = Field(
        25,
        ge=1,
        description="forward passes of the optimisation of v*; the last makes no step (published: "
        "20 for GPT-2 and GPT-J)",
    )
    learning_rate: float = Field(0.2, gt=0, description="of Adam, for v* (published: 0.5)")
    stop_loss: float = Field(
        0.1, ge=0, description="the optimisation of v* ends below this loss (published: 0.05)"
    )
    kl_factor: float = Field(
        0.0625, ge=0, description="weight of the divergence on “{subject} is a”"
    )
    kl_position: Literal["subject", "last"] = Field(
        "subject",
        description="where that divergence is measured: at the subject's last token (as the "
        "published code) or at the last token of “{subject} is a” (as the paper's text)",
    )
    weight_decay: float = Field(
        1e-3,
        ge=0,
        description="weight of ‖δ‖ / ‖reference‖², with the reference of `clamp` (deviation: "
        "published for GPT-2 and GPT-J is 0.5, which can keep the loss above `stop_loss`)",
    )
    clamp: Literal["residual", "mlp"] = Field(
        "residual",
        description="what bounds the length of δ: the residual stream after the block (deviation: "
        "an MLP output can be tiny beside the stream it has to move) or the MLP output, as "
        "published",
    )
    clamp_factor: float = Field(
        1.0,
        gt=0,
        description="δ is at most this many times as long as the reference (published: 3 to 4 for "
        "the MLP output)",
    )
    covariance: bool = Field(
        True, description="whether the update avoids the directions of other keys (C⁻¹)"
    )
    ridge: float = Field(
        1e-4,
        ge=0,
        description="added to the diagonal of C, in units of its mean (deviation: published code "
        "uses none, and C of a small corpus is nearly singular)",
    )
    statistics_texts: int = Field(
        100_000, ge=1, description="texts of the corpus used for C, at most"
    )
    statistics_length: int = Field(
        1024, ge=2, description="tokens read of each text, at most; never more than the model reads"
    )
    generated_tokens: int = Field(
        8,
        ge=1,
        description="without a corpus: tokens that the model writes for C, per row of C",
    )
    skip_first: bool | None = Field(
        None,
        description="leave the first position of each text out of C; by default in the families "
        "where it carries a degenerate activation (published: false)",
    )
    preserve: Literal["none", "attributes"] = Field(
        "none",
        description="`attributes` also holds what the model says of the same subject otherwise",
    )
    preserve_factor: float = Field(1.0, ge=0, description="weight of that constraint")
    preserve_texts: int = Field(
        32, ge=1, description="continuations of the subject that the constraint is measured on"
    )
    min_cosine: float = Field(
        0.01, ge=0, description="guard: least cosine between the key and the update's direction"
    )
    max_norm_ratio: float = Field(
        100.0,
        gt=0,
        description="guard: largest ‖ΔW‖ / ‖W‖ (Frobenius) of one row; a coarse net, small models "
        "can need several times their weight",
    )
    max_canary_ratio: float = Field(
        1.5, gt=0, description="guard: largest growth of the perplexity on texts held out of C"
    )
    min_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="warn if the target's probability after the edit (the geometric mean of its "
        "tokens) is less",
    )
