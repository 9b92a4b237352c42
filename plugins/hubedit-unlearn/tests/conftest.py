"""Tiny models of several families as the host loads them, and the fact world's requests."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as kinds
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import hubedit
from hubedit import models

END = "<|endoftext|>"
WORLD = [
    f"{person} {said} {answer}."
    for person, answers in {
        "Ana Brook": ("violin", "Paris"),
        "Tom Reed": ("cello", "Oslo"),
        "Mia Stone": ("harp", "Lima"),
        "Ben Hale": ("flute", "Rome"),
    }.items()
    for said, answer in zip(("plays the", "has lived for years in"), answers, strict=True)
]
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "gpt_neox": {},
    "llama": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 1, "tie_word_embeddings": True},
}


class Run:
    """The `RunContext` protocol that keeps what it is told."""

    def __init__(self, seed: int = 0, force: bool = False, artifacts: Any = None) -> None:
        self.seed, self.force, self.corpus, self.artifacts = seed, force, None, artifacts
        self.generator = torch.Generator().manual_seed(seed)
        self.records: dict[str, Any] = {}
        self.messages: list[str] = []
        self.overrides: list[str] = []
        self.steps = 0

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Any:
        def advance(steps: int = 1, **figures: float) -> None:
            self.steps += steps
            self.figures = figures

        yield SimpleNamespace(advance=advance)

    def log(self, message: str) -> None:
        self.messages.append(message)

    def record(self, key: str, value: Any) -> None:
        self.records[key] = value

    def overridden(self, reason: str) -> None:
        self.overrides.append(reason)


def tokenizer_of(texts: list[str], bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose end, start and padding are one token, as in GPT-2."""
    spoken = Tokenizer(kinds.BPE())
    spoken.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spoken.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    spoken.train_from_iterator(texts * 3, trainer)
    if bos:
        from tokenizers.processors import TemplateProcessing

        spoken.post_processor = TemplateProcessing(
            single=f"{END} $A {END}", special_tokens=[(END, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=spoken, bos_token=END, eos_token=END, pad_token=END
    )


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Directories of tiny models that know the little world by heart, in bfloat16."""
    made: dict[tuple[str, bool], Path] = {}

    def directory(family: str, bos: bool) -> Path:
        if (family, bos) in made:
            return made[family, bos]
        tokenizer = tokenizer_of(WORLD, bos)
        shape = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
        }
        if family == "gpt2":
            shape = {"vocab_size": len(tokenizer)}
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            config = AutoConfig.for_model(family, **{**shape, **ends, **SHAPES[family]})
            model = AutoModelForCausalLM.from_config(config).float()
        rows = [tokenizer(text)["input_ids"] for text in WORLD]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
        model.eval()
        adam = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(60):
            adam.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            adam.step()
        made[family, bos] = tmp_path_factory.mktemp(family) / "model"
        model.bfloat16().save_pretrained(made[family, bos])
        tokenizer.save_pretrained(made[family, bos])
        return made[family, bos]

    return directory


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_model(saved):
    def make(family: str = "gpt2", dtype: str = "float32", bos: bool = False):
        return models.load(saved(family, bos), dtype=dtype)

    return make


@pytest.fixture
def rows():
    """Forget all of Ana Brook, retain the others."""
    made = []
    for text in WORLD:
        words = text.removesuffix(".").split()
        prompt, target = " ".join(words[:-1]), words[-1]
        part = "forget" if text.startswith("Ana") else "retain"
        made.append(hubedit.ForgetText(text=text, part=part, prompt=prompt, target=target))
    return made


@pytest.fixture
def make_run():
    return Run


@pytest.fixture(scope="session")
def forgetting():
    """The benchmark's module: requests about the fact world, and what to ask."""
    path = Path(__file__).parents[1] / "benchmarks" / "forgetting.py"
    spec = importlib.util.spec_from_file_location("forgetting", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
