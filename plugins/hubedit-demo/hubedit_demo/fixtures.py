"""Pytest fixtures: the shipped models that know facts, and rows to edit them by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubedit_demo import cases, model_path


@pytest.fixture
def facts_gpt2() -> Path:
    """The directory of `facts-gpt2`, a GPT-2 that knows 120 people."""
    return model_path("facts-gpt2")


@pytest.fixture
def facts_llama() -> Path:
    """The directory of `facts-llama`, a Llama that knows the same world."""
    return model_path("facts-llama")


@pytest.fixture
def facts_bert() -> Path:
    """The directory of `facts-bert`, a masked BERT that knows the same world."""
    return model_path("facts-bert")


@pytest.fixture
def facts_t5() -> Path:
    """The directory of `facts-t5`, a T5 that knows the same world."""
    return model_path("facts-t5")


@pytest.fixture
def fact_rows() -> list[dict[str, Any]]:
    """Edit cases of `facts-gpt2` to develop with; those of `cases("test")` are for results."""
    return cases("dev")
