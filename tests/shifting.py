"""A method for tests that shifts chosen matrices by seeded amounts, and stacks of its edits."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

import hubedit
from hubedit import run
from hubedit.hub import Hub
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe


class ShiftConfig(hubedit.Config):
    block: int = Field(0, description="The block whose second MLP matrix is shifted.")
    size: float = Field(1e-3, description="Length of the shift.")
    kind: Literal["low_rank", "rows"] = Field("low_rank", description="How it is handed over.")
    towards: int | None = Field(None, description="Shift the outputs towards this token.")


class Shift(hubedit.Method[hubedit.FactEdit, ShiftConfig]):
    """Adds a seeded product of rank one, or writes a row."""

    name = "shift"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal"})

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: ShiftConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Shift the matrix."""
        name = f"transformer.h.{config.block}.mlp.c_proj.weight"
        weight = model.weight(name).detach().float().numpy()
        draw = np.random.default_rng(run.seed)
        if config.kind == "rows":
            row = int(draw.integers(weight.shape[0]))
            values = weight[row : row + 1] + np.float32(config.size)
            model.update(name, hubedit.Rows([row], values))
            return
        left = draw.standard_normal((weight.shape[0], 1)).astype(np.float32)
        right = draw.standard_normal((1, weight.shape[1])).astype(np.float32)
        if config.towards is not None:
            right = model.weight("transformer.wte.weight").detach()[config.towards][None].numpy()
            left = np.abs(left)
        left *= np.float32(config.size / np.linalg.norm(left))
        right = right / np.float32(np.linalg.norm(right))
        model.update(name, hubedit.LowRank(left, right.astype(np.float32)))


def plugins() -> Plugins:
    """The method alone."""
    found = Plugins()
    module = sys.modules[__name__]
    found.infos.append(PluginInfo("shift", "shift", "0", module=module, methods=[Shift]))
    return found


def shifted(
    base: Path | str, output: Path, config: Mapping[str, Any], *, seed: int = 0, **row: Any
) -> Path:
    """Apply the method to a base; `row` are further keys of the row. Returns the directory."""
    asked = {"prompt": "{} plays the", "subject": "Ada Brook", "target": "oboe", **row}
    keys = {"base": str(base), "plugin": "shift", "request": [asked], "seed": seed}
    recipe = make_recipe({**keys, "config": dict(config), "threads": 1})
    hub = Hub()
    return run.apply(run.prepare(recipe, lambda: hub, plugins=plugins()), output).directory


def stacked(base: Path, folder: Path, configs: Sequence[Mapping[str, Any]], **row: Any) -> Path:
    """Apply one configuration after the other; returns the directory of the last."""
    for number, config in enumerate(configs, start=1):
        base = shifted(base, folder / str(number), config, seed=number, **row)
    return base
