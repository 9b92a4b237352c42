"""The closed form of each method with its settings, ready for a layer's statistic."""

from __future__ import annotations

import torch

from hubedit_memit import solve
from hubedit_memit.config import AlphaEditConfig, EmmetConfig, MemitConfig
from hubedit_memit.keys import Prepare, Solve


def of_memit(config: MemitConfig) -> Prepare:
    """MEMIT's, with λ from the length of a key unless it is set as published."""

    def prepare(moment: torch.Tensor) -> Solve:
        c = solve.damped(moment, config.ridge)
        weight = config.absolute_weight or config.covariance_weight * len(c)
        return lambda keys, earlier: solve.memit(c, keys, weight, earlier)

    return prepare


def of_emmet(config: EmmetConfig) -> Prepare:
    """EMMET's; the keys of earlier rows join C with the weight of one text each."""

    def prepare(moment: torch.Tensor) -> Solve:
        c = solve.damped(moment, config.ridge)

        def made(keys: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
            kept = c if earlier is None else c + earlier @ earlier.T
            return solve.emmet(kept, keys, config.epsilon, config.absolute_epsilon)

        return made

    return prepare


def of_alphaedit(config: AlphaEditConfig) -> Prepare:
    """AlphaEdit's, within the directions that C leaves unused."""

    def prepare(moment: torch.Tensor) -> Solve:
        unused = solve.unused_directions(moment, config.nullspace, config.absolute_nullspace)
        return lambda keys, earlier: solve.alphaedit(
            unused, keys, config.l2, config.absolute_l2, earlier
        )

    return prepare
