"""A tiny model in float64 and the least host that a method can run in."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hubedit import models
from hubedit.artifacts import ArtifactStore
from hubedit.testing import TEXTS, tiny_model


class TinyRun:
    """The `RunContext` protocol that keeps what it is told."""

    def __init__(self, root: Any, seed: int = 0, force: bool = True, corpus: Any = None) -> None:
        self.seed, self.force, self.corpus = seed, force, corpus
        self.generator = torch.Generator().manual_seed(seed)
        self.artifacts = ArtifactStore(root)
        self.records: dict[str, Any] = {}
        self.messages: list[str] = []
        self.disclosed, self.earlier = True, []
        self.kept: dict[str, torch.Tensor] = {}

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Any:
        yield SimpleNamespace(advance=lambda steps=1, **figures: None)

    def log(self, message: str) -> None:
        self.messages.append(message)

    def record(self, key: str, value: Any) -> None:
        self.records[key] = value

    def keep(self, name: str, value: torch.Tensor, *, harmless: bool = False) -> None:
        self.kept[name] = value

    def overridden(self, reason: str) -> None:
        self.messages.append(reason)


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


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64},
    "gpt_neox": {"num_attention_heads": 2},
    "llama": {"num_attention_heads": 2, "num_key_value_heads": 1},
    "qwen2": {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True},
}


@pytest.fixture
def make_model(tiny_directory, tmp_path):
    """An untrained model of a family, three blocks deep, with the tiny model's tokenizer."""

    def make(family: str) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(tiny_directory)
        shape = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
        if family != "gpt2":
            shape |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
            shape |= {"max_position_embeddings": 64}
        config = AutoConfig.for_model(family, **shape, **SHAPES[family], initializer_range=0.15)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        return models.load(tmp_path / family)

    return make


@pytest.fixture
def corpus():
    return SimpleNamespace(texts=list(TEXTS) * 8, source="four lines", digest="c" * 64)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Statistics that all tests of a session share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def make_run(store, corpus):
    def make(**how: Any) -> TinyRun:
        return TinyRun(store, **{"corpus": corpus, **how})

    return make


@pytest.fixture
def make_facts_run(store):
    """Runs on the fact model, with a part of the corpus that ships with it."""
    demo = pytest.importorskip("hubedit_demo")
    lines = (demo.model_path() / "corpus.txt").read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()][::3]
    corpus = SimpleNamespace(texts=texts, source="the demo's corpus", digest="d" * 64)
    return lambda: TinyRun(store, force=False, corpus=corpus)


@pytest.fixture
def facts_run(make_facts_run):
    return make_facts_run()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
