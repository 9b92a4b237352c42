"""Every setting of the fine-tuning baselines, with its default and why it is what it is."""

from __future__ import annotations

from typing import Literal

from hubedit_rome.auto import SomeLayers
from pydantic import Field

import hubedit


class TuningConfig(hubedit.Config):
    """What the four methods share: how long they train, and in what batches."""

    steps: int = Field(
        200,
        ge=1,
        description="passes over the rows at most; it ends once the loss is low (published: 25 for "
        "one row)",
    )
    stop_loss: float = Field(
        1e-2, ge=0, description="training ends when the mean loss of a pass is below this"
    )
    weight_decay: float = Field(0.0, ge=0, description="of Adam, towards zero")
    batch_size: int = Field(64, ge=1, description="rows in one step")
    min_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="warn if a target's probability after the edit (the geometric mean of its "
        "tokens) is less",
    )


class FtConfig(TuningConfig):
    """Settings of FT and FT-M."""

    layers: SomeLayers = Field(
        "auto",
        description="blocks whose second MLP matrix is trained, from 0; `auto`: the one that ROME "
        "edits in this family and depth, else the one that a stored trace names (`hubedit trace`), "
        "else the one a third of the way up",
    )
    bias: bool = Field(True, description="also train its bias, as the published code does")
    learning_rate: float = Field(5e-4, gt=0, description="of Adam, as published")


class FtLConfig(FtConfig):
    """Settings of FT-L."""

    max_change: float = Field(
        2.0,
        gt=0,
        description="no element moves further than this many times the weight's root mean square "
        "(deviation: the published bounds are absolute and set per model)",
    )
    absolute_change: float | None = Field(
        None,
        gt=0,
        description="the same without unit, as published (0.0005 for GPT-2 XL, 0.002 for GPT-2 "
        "medium, 0.00005 for GPT-J)",
    )


class LoraConfig(TuningConfig):
    """Settings of LoRA."""

    layers: tuple[int, ...] | None = Field(
        None, description="blocks whose linear modules get factors, from 0; by default all"
    )
    modules: Literal["all", "mlp", "attention"] = Field(
        "all", description="which of their linear modules"
    )
    rank: int = Field(8, ge=1, description="of the factors")
    alpha: int = Field(16, ge=1, description="the factors' product is scaled by alpha / rank")
    learning_rate: float = Field(5e-4, gt=0, description="of Adam")
