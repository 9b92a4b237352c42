"""A tiny model, the fact model, and the least host that a method can run in."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hubedit import models
from hubedit.testing import tiny_model


class TinyRun:
    """The `RunContext` protocol that keeps what it is told."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.force, self.corpus = seed, False, None
        self.generator = torch.Generator().manual_seed(seed)
        self.records: dict[str, Any] = {}
        self.messages: list[str] = []

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Any:
        yield SimpleNamespace(advance=lambda steps=1, **figures: None)

    def log(self, message: str) -> None:
        self.messages.append(message)

    def record(self, key: str, value: Any) -> None:
        self.records[key] = value


@pytest.fixture
def run():
    return TinyRun()


@cache
def _facts() -> Any:
    demo = pytest.importorskip("hubedit_demo")
    return models.load(demo.model_path())


@pytest.fixture
def facts():
    """The demo's fact model as it is shipped."""
    model = _facts()
    model.restore()
    return model


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def tiny(tiny_directory):
    """A GPT-2 of three blocks with random weights."""
    return models.load(tiny_directory)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
