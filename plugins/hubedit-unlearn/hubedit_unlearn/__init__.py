"""Gradient-based unlearning as a hubedit plugin."""

from __future__ import annotations

from typing import Any

import hubedit
from hubedit_unlearn.config import (
    CeUConfig,
    DpoConfig,
    GaConfig,
    GradDiffConfig,
    IdkConfig,
    JangConfig,
    KlConfig,
    LlmuConfig,
    NpoConfig,
    RmuConfig,
    SatImpConfig,
    SimNpoConfig,
    TaskVectorConfig,
    TrainingConfig,
    UndialConfig,
    WgaConfig,
)
from hubedit_unlearn.methods import METHODS, Dpo, Ga, GradDiff, Idk, Kl, Npo, Rmu, SimNpo
from hubedit_unlearn.variants import CeU, Jang, Llmu, SatImp, TaskVector, Undial, Wga

__all__ = [
    "METHODS",
    "CeU",
    "CeUConfig",
    "Dpo",
    "DpoConfig",
    "Ga",
    "GaConfig",
    "GradDiff",
    "GradDiffConfig",
    "Idk",
    "IdkConfig",
    "Jang",
    "JangConfig",
    "Kl",
    "KlConfig",
    "Llmu",
    "LlmuConfig",
    "Npo",
    "NpoConfig",
    "Rmu",
    "RmuConfig",
    "SatImp",
    "SatImpConfig",
    "SimNpo",
    "SimNpoConfig",
    "TaskVector",
    "TaskVectorConfig",
    "TrainingConfig",
    "Undial",
    "UndialConfig",
    "Wga",
    "WgaConfig",
    "hubedit_methods",
]


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[Any, Any]]]:
    """Offer the methods of this plugin to the host."""
    return list(METHODS)
