"""Tiny models in float64, the fact models, and the least host that a method can run in."""

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

    def __init__(self, force: bool = False) -> None:
        self.seed, self.force, self.corpus = 0, force, None
        self.generator = torch.Generator().manual_seed(0)
        self.records: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}
        self.messages: list[str] = []

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Any:
        yield SimpleNamespace(advance=lambda steps=1, **figures: None)

    def log(self, message: str) -> None:
        self.messages.append(message)

    def record(self, key: str, value: Any) -> None:
        self.records[key] = value

    def figure(self, name: str, values: Any, **labels: Any) -> None:
        self.figures[name] = (values, labels)

    def overridden(self, reason: str) -> None:
        self.messages.append(reason)


@pytest.fixture
def run():
    return TinyRun()


@pytest.fixture
def forced():
    return TinyRun(force=True)


@pytest.fixture(scope="session")
def tiny_directories(tmp_path_factory):
    home = tmp_path_factory.mktemp("tiny")
    return {kind: tiny_model(home / kind, kind) for kind in ("causal", "masked", "seq2seq")}


@pytest.fixture
def make_tiny(tiny_directories):
    """A model of random weights of an architecture."""
    return lambda kind: models.load(tiny_directories[kind])


@cache
def _facts(name: str) -> Any:
    demo = pytest.importorskip("hubedit_demo")
    return models.load(demo.model_path(name))


@pytest.fixture
def facts():
    """One of the demo's fact models as it is shipped."""

    def of(name: str) -> Any:
        model = _facts(name)
        model.restore()
        return model

    return of


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
