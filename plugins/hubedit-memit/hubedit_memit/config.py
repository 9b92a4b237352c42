"""Every setting of MEMIT, EMMET and AlphaEdit, with its default and why it is what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from hubedit_rome.auto import SomeLayers
from pydantic import Field

import hubedit

_ALIKE: Mapping[str, Any] = {
    "subjects": "apart",
    "residual": "bare",
    "reference": "bare",
    "clamp_factor": 0.75,
    "weight_decay": 0.5,
    "learning_rate": 0.5,
    "steps": 20,
    "ridge": 0,
    "skip_first": False,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "memit": {**_ALIKE, "absolute_weight": 20_000},
    "emmet": {**_ALIKE, "absolute_epsilon": 0.1},
    "alphaedit": {**_ALIKE, "absolute_nullspace": 0.02, "absolute_l2": 10},
}
"""The published forms for GPT-2 XL by method: every setting whose default is another."""


class ManyFactsConfig(hubedit.Config):
    """What the three methods share: layers, keys, the optimisation of z*, statistics, guards."""

    layers: SomeLayers = Field(
        "auto",
        description="blocks to edit, from 0; the last is the one whose output z* is optimised "
        "for; `auto`: the published ones for this family and depth, else a sixth of the blocks up "
        "to the one that a stored trace names (`hubedit trace`), else to a third of the way up; "
        "emmet takes the last of them alone",
    )
    prefixes: tuple[tuple[int, int], ...] = Field(
        ((10, 5),),
        description="random beginnings put before each prompt, as pairs (tokens, how many); the "
        "bare prompt is always used too",
    )
    value_prefixes: int = Field(
        5, ge=0, description="how many of the prefixes z* is optimised after; keys use all of them"
    )
    prefix_top_k: int = Field(5, ge=1, description="tokens to choose from when one is sampled")
    bare_weight: float = Field(
        0.5, ge=0, le=1, description="weight of the bare prompt in the mean key, as published"
    )
    subjects: Literal["together", "apart"] = Field(
        "together",
        description="rows about one subject have nearly one key, which has one value: `together` "
        "gives them one key and one z* for all their targets (deviation); `apart`, as published, "
        "one each, of which the solution makes the mean",
    )
    residual: Literal["averaged", "bare"] = Field(
        "averaged",
        description="where z* is compared with the state: in the mean over the contexts that the "
        "key is the mean of (deviation), or after the bare prompt alone, as published",
    )
    steps: int = Field(
        25,
        ge=1,
        description="forward passes of the optimisation of z*; the last makes no step (published: "
        "20 for GPT-2, 25 for others)",
    )
    learning_rate: float = Field(0.2, gt=0, description="of Adam, for z* (published: 0.5)")
    stop_loss: float = Field(
        0.05, ge=0, description="a row's optimisation of z* ends below this loss, as published"
    )
    kl_factor: float = Field(
        0.0625, ge=0, description="weight of the divergence on “{subject} is a”"
    )
    weight_decay: float = Field(
        1e-3,
        ge=0,
        description="weight of ‖δ‖ / ‖reference‖² (published: 0.5 for GPT-2 and GPT-J, 0.001 for "
        "gated models)",
    )
    reference: Literal["median", "bare"] = Field(
        "median",
        description="the length that δ is compared with: the median of the states that it is added "
        "to (deviation: one degenerate position does not move it), or that of the bare prompt's, "
        "as published",
    )
    clamp_factor: float = Field(
        1.0,
        gt=0,
        description="δ is at most this many times as long as the reference (published: 0.75 for "
        "GPT-2 and GPT-J, 4 for gated models)",
    )
    rows_at_once: int = Field(
        64, ge=1, description="rows whose z* are optimised in one batch; for memory alone"
    )
    batch: int | None = Field(
        None,
        ge=1,
        description="rows written at once; the next ones are made on the model that those before "
        "them left, and keep what it says to their keys; by default all rows",
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
        8, ge=1, description="without a corpus: tokens that the model writes for C, per row of C"
    )
    skip_first: bool | None = Field(
        None,
        description="leave the first position of each text out of C, and contexts whose subject "
        "stands there out of the keys; by default in the families where it carries a degenerate "
        "activation (published: false)",
    )
    max_norm_ratio: float = Field(
        100.0, gt=0, description="guard: largest ‖ΔW‖ / ‖W‖ (Frobenius) of one batch in one layer"
    )
    max_canary_ratio: float = Field(
        3.0,
        gt=0,
        description="guard: largest growth of the perplexity on texts held out of C, from the "
        "start of the run to the end of a batch",
    )
    min_recall: float = Field(
        0.5,
        ge=0,
        le=1,
        description="guard: least share of the rows of earlier batches that are still answered",
    )
    on_collapse: Literal["keep", "stop"] = Field(
        "keep",
        description="when a guard stops a batch that is not the first: keep what was written "
        "before it and leave the rest out, or write nothing",
    )
    min_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="warn if a target's probability after the edit (the geometric mean of its "
        "tokens) is less",
    )


class MemitConfig(ManyFactsConfig):
    """Settings of MEMIT; `PUBLISHED["memit"]` is the published form."""

    covariance_weight: float = Field(
        0.3,
        gt=0,
        description="λ, how much other keys weigh against those of the rows, in units of d, the "
        "length of a key: kᵀC⁻¹k of a usual key is d, so that λ means the same in models of every "
        "width (published in these units: 3.1 for GPT-2 XL, 0.9 for GPT-J)",
    )
    absolute_weight: float | None = Field(
        None, gt=0, description="λ itself, as published (20000 for GPT-2 XL, 15000 for GPT-J)"
    )


class EmmetConfig(ManyFactsConfig):
    """Settings of EMMET; `PUBLISHED["emmet"]` is the published form.

    One layer by default, as published; ε=0.1 there is `epsilon` times the mean of kᵀC⁻¹k here.
    """

    epsilon: float = Field(
        0.1,
        ge=0,
        description="how far the constraints may be missed: added to the diagonal of KᵀC⁻¹K, in "
        "units of its mean",
    )
    absolute_epsilon: float | None = Field(
        None, ge=0, description="the same without unit, as published (0.1)"
    )


class AlphaEditConfig(ManyFactsConfig):
    """Settings of AlphaEdit; `PUBLISHED["alphaedit"]` is the published form."""

    nullspace: float = Field(
        0.5,
        gt=0,
        description="directions of keys whose mean square is below this many times the mean over "
        "all directions count as unused, and the update keeps to them",
    )
    absolute_nullspace: float | None = Field(
        None, gt=0, description="the same bound itself, as published (0.02)"
    )
    l2: float = Field(1e-2, gt=0, description="weight of ‖Δ‖², in units of the rows' mean ‖Pk‖²")
    absolute_l2: float | None = Field(
        None, gt=0, description="the same without unit, as published (10)"
    )
