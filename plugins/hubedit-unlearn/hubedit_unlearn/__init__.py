"""Gradient-based unlearning as a hubedit plugin."""

from __future__ import annotations

from typing import Any

import hubedit
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
from hubedit_unlearn.methods import METHODS, Dpo, Ga, GradDiff, Idk, Kl, Npo, Rmu, SimNpo

__all__ = [
    "METHODS",
    "Dpo",
    "DpoConfig",
    "Ga",
    "GaConfig",
    "GradDiff",
    "GradDiffConfig",
    "Idk",
    "IdkConfig",
    "Kl",
    "KlConfig",
    "Npo",
    "NpoConfig",
    "Rmu",
    "RmuConfig",
    "SimNpo",
    "SimNpoConfig",
    "TrainingConfig",
    "hubedit_methods",
]


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[Any, Any]]]:
    """Offer the methods of this plugin to the host."""
    return list(METHODS)
