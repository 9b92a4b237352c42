"""Pytest fixtures for authors of plugins: a home of its own for each test, and recipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubedit.recipe import RECIPE_FILE


@pytest.fixture
def hubedit_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own for what hubedit keeps, such as statistics and keys."""
    home = tmp_path / "hubedit-home"
    monkeypatch.setenv("HUBEDIT_HOME", str(home))
    return home


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write `hubedit.yaml` and its request: `write_recipe(base, plugin, rows, **keys)`.

    Gives the recipe's path, for `hubedit apply`; keys are those of a recipe, such as `seed` and
    `config`.
    """

    def write(
        base: str | Path, plugin: str, rows: Sequence[Mapping[str, Any]], **keys: Any
    ) -> Path:
        request = tmp_path / "request.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        request.write_text("".join(lines), encoding="utf-8")
        recipe = tmp_path / RECIPE_FILE
        words = {"base": str(base), "plugin": plugin, "request": request.name, **keys}
        recipe.write_text(yaml.safe_dump(words, sort_keys=False), encoding="utf-8")
        return recipe

    return write
