"""A guardrail for tests: a method that writes files of the model, and weights if asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

import hubedit
from hubedit import run
from hubedit.hub import Hub
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe

TEMPLATE = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
EMBEDDINGS = "transformer.wte.weight"
FIGURE: dict[str, Any] = {
    "name": "strength",
    "values": [[0.0, 0.123456, 1.0], [0.5, 0.25, 0.0]],
    "rows": ["layer 0", "layer 1"],
    "columns": ["left", "middle", "right"],
    "caption": "How strong each part is.",
}


class NoteConfig(hubedit.Config):
    files: dict[str, str] = Field({}, description="Texts to write, by path.")
    row: int | None = Field(None, description="A row of the embeddings to set to one.")
    add: dict[str, list[float]] = Field({}, description="Tensors to add, by name.")
    drop: list[str] = Field([], description="Names of tensors to drop.")
    show: bool = Field(False, description="Whether to show a figure.")


class Note(hubedit.Method[hubedit.FactEdit, NoteConfig]):
    """Writes what it is told to."""

    name = "note"
    kind = "edit"
    assurance = "guardrail"
    architectures = frozenset({"causal"})

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: NoteConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Write the files and the row."""
        for path, text in config.files.items():
            run.record(f"before {path}", model.read_file(path))
            model.write_file(path, text)
        if config.row is not None:
            width = model.weight(EMBEDDINGS).shape[1]
            model.update(EMBEDDINGS, hubedit.Rows([config.row], np.ones((1, width), np.float32)))
        for name, values in config.add.items():
            model.add_tensor(name, np.array(values, np.float32))
        for name in config.drop:
            model.drop_tensor(name)
        if config.show:
            run.figure(**FIGURE)


def noted(base: Path | str, output: Path, *, weights: bool = False, **more: Any) -> Path:
    """Apply the method to a base; `more` are further keys of the recipe. Returns the directory."""
    plugins = Plugins()
    module = sys.modules[__name__]
    plugins.infos.append(PluginInfo("note", "note", "0", module=module, methods=[Note]))
    row = {"prompt": "{} plays the", "subject": "Ada Brook", "target": "oboe"}
    recipe = make_recipe({"base": str(base), "plugin": "note", "request": [row], **more})
    hub = Hub()
    job = run.prepare(recipe, lambda: hub, plugins=plugins, weights=weights, push="to" in more)
    return run.apply(job, output).directory
