"""Tiny models of every family, and the least host that a method can run in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from hubedit.artifacts import ArtifactStore
from hubedit.asking import Asking
from hubedit.layouts import layout_for

FACTS = {
    "Ana Brook": ("violin", "Paris", "red apples"),
    "Tom Reed": ("cello", "Oslo", "green tea"),
    "Mia Stone": ("harp", "Lima", "red apples"),
    "Lea": ("violin", "Oslo", "green tea"),
    "Ben Brook": ("harp", "Paris", "green tea"),
    "Ida Reed": ("cello", "Lima", "red apples"),
}
WORLD = [
    opener + template.format(person, answer)
    for person, answers in FACTS.items()
    for template, answer in zip(
        ("{} plays the {}.", "{} lives in {}.", "{} likes {}."), answers, strict=True
    )
    for opener in ("", "We read that ")
]

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64},
    "gpt_neox": {"intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2},
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "head_dim": 16},
    "qwen2": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True},
}


def tiny_tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of the little world."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(WORLD * 3, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=end if bos else None, eos_token=end, pad_token=end
    )


def tiny_model(family: str, vocabulary: int, dtype: torch.dtype = torch.float32) -> Any:
    """An untrained model of a family, three blocks deep, 32 wide."""
    shape = {
        "vocab_size": vocabulary,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    if family == "gpt2":
        shape = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, **{**shape, **SHAPES[family]}, initializer_range=0.15)
    return AutoModelForCausalLM.from_config(config).to(dtype)


@cache
def taught_model(family: str, bos: bool) -> Any:
    """A tiny model that has learnt the little world by heart."""
    tokenizer = tiny_tokenizer(bos)
    model = tiny_model(family, len(tokenizer))
    texts = [
        *WORLD,
        *(f"{one} {two}" for one, two in zip(WORLD, WORLD[5:] + WORLD[:5], strict=True)),
    ]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        adam.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        adam.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


class TinyEditable(Asking):
    """The `EditableModel` protocol over a model in memory."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        layout = layout_for(model.config.model_type)
        super().__init__(model, tokenizer, layout, torch.device("cpu"))
        self.updates: list[tuple[str, Any]] = []

    def update(self, parameter: str, update: Any) -> None:
        left, right = (torch.tensor(part) for part in (update.left, update.right))
        with torch.no_grad():
            self.weight(parameter).add_((left @ right).to(self.weight(parameter).dtype))
        self.updates.append((parameter, update))

    def weight(self, parameter: str) -> torch.Tensor:
        return self.model.get_parameter(parameter)

    def digest(self, ignoring: Sequence[str] = ()) -> str:
        return "0" * 64


class TinyRun:
    """The `RunContext` protocol that keeps what it is told."""

    def __init__(self, root: Path, seed: int = 0, force: bool = False, corpus: Any = None) -> None:
        self.seed, self.force, self.corpus = seed, force, corpus
        self.generator = torch.Generator().manual_seed(seed)
        self.artifacts = ArtifactStore(root)
        self.records: dict[str, Any] = {}
        self.messages: list[str] = []
        self.overrides: list[str] = []

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Any:
        yield SimpleNamespace(advance=lambda steps=1, **figures: None)

    def log(self, message: str) -> None:
        self.messages.append(message)

    def record(self, key: str, value: Any) -> None:
        self.records[key] = value

    def overridden(self, reason: str) -> None:
        self.overrides.append(reason)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def world() -> list[str]:
    return list(WORLD)


@pytest.fixture
def corpus() -> Any:
    return SimpleNamespace(texts=WORLD * 8, source="a little world", digest="c" * 64)


@pytest.fixture
def make_run(tmp_path: Path, corpus: Any) -> Callable[..., TinyRun]:
    def make(name: str = "store", **how: Any) -> TinyRun:
        return TinyRun(tmp_path / name, **{"corpus": corpus, **how})

    return make


@pytest.fixture
def make_model() -> Callable[..., TinyEditable]:
    def make(
        family: str = "gpt2", dtype: torch.dtype = torch.float32, bos: bool = True
    ) -> TinyEditable:
        return TinyEditable(deepcopy(taught_model(family, bos)).to(dtype), tiny_tokenizer(bos))

    return make
