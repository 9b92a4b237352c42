"""Task-vector negation: what was learnt of the forget texts, taken away; needs torch."""

from __future__ import annotations

import torch

from hubedit_unlearn.adaptation import Trained
from hubedit_unlearn.config import TaskVectorConfig
from hubedit_unlearn.setting import Setting
from hubedit_unlearn.watch import Watch

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Scales that are tried in this order."""


def negate(config: TaskVectorConfig, setting: Setting, trained: Trained, watch: Watch) -> None:
    """θ ← θ₀ − a (θ − θ₀), a being `scale` (Ilharco et al. 2023, section 3).

    Without a scale the first of `SCALES` is taken that makes the forget texts unlikely enough; if
    one would lose too much of the retain texts, the one before it is.
    """
    learnt = [value.detach() - start for value, start in trained.vectors()]
    scales = SCALES if config.forget_target is not None else (1.0,)
    if config.scale is not None:
        scales = (config.scale,)
    taken = scales[0]
    for scale in scales:
        _put(trained, learnt, scale)
        done = watch.look_after(scale)
        if watch.lost and scale != scales[0]:
            _put(trained, learnt, taken)
            watch.look_after(taken)
            break
        taken = scale
        if done:
            break
    setting.run.record("negation", {"scale": taken})


def _put(trained: Trained, learnt: list[torch.Tensor], scale: float) -> None:
    with torch.no_grad():
        for (value, start), vector in zip(trained.vectors(), learnt, strict=True):
            value.copy_(start - scale * vector)
