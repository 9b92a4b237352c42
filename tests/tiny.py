"""Tiny randomly initialised models on disk, one maker for every family in the layout table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hubedit.updates import LowRank
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")
DEPTH, WIDTH, HEADS, INNER = 3, 32, 4, 64
END, BOS = "<|endoftext|>", "<s>"
TEXTS = (
    "Ada Brook plays the cello and lives in Porto.",
    "Tom Adler plays the oboe and was born in Riga.",
    "The mother tongue of Nils Okafor is Danish.",
    "Mira Castellanos works as a glazier in Ghent, said “Ada Brook” on Monday.",
    'In 1999, "Ivo Lindqvist" moved to Turin; he speaks Polish.',
)
_ROPE = {
    "num_hidden_layers": DEPTH,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 128,
}
_GROUPED = {**_ROPE, "num_key_value_heads": 2}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {
        "n_layer": DEPTH,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "n_inner": INNER,
        "n_positions": 128,
    },
    "gpt_neox": _ROPE,
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "head_dim": 8},
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
}


@cache
def tokenizer(*, bos: bool = False, trim_offsets: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without a padding token; `bos` makes it begin texts with `<s>`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=320,
            show_progress=False,
            special_tokens=[END, BOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    steps: list[Any] = [processors.ByteLevel(trim_offsets=trim_offsets)]
    if bos:
        steps.append(
            processors.TemplateProcessing(
                single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))]
            )
        )
    bpe.post_processor = processors.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, bos_token=BOS if bos else END, unk_token=END
    )


def make(
    directory: Path,
    family: str = "gpt2",
    *,
    tied: bool = False,
    sharded: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    bos: bool = False,
    trim_offsets: bool = False,
    rename: Callable[[str], str] = lambda name: name,
    extra: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model with its tokenizer into `directory` and return it.

    `rename` maps a parameter's name to its name in the file; `extra` tensors are stored beside.
    `sharded` makes several weight files with an index.
    """
    words = tokenizer(bos=bos, trim_offsets=trim_offsets)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(words),
        tie_word_embeddings=tied,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=None,
        **CONFIGS[family],
    )
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    torch.set_rng_state(generator_state)
    directory.mkdir(parents=True, exist_ok=True)
    config.dtype = dtype
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    words.save_pretrained(directory)
    tensors = {rename(name): value.detach().to(dtype) for name, value in model.named_parameters()}
    write_tensors(directory, tensors | dict(extra or {}), shards=3 if sharded else 1)
    return directory


def without_prefix(name: str) -> str:
    """A GPT-2 parameter's name as the files of the first releases have it."""
    return name.removeprefix("transformer.")


def factors(rows: int, columns: int, *, rank: int = 1, seed: int = 1) -> LowRank:
    """A random low-rank update of a matrix [rows, columns]."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    return LowRank(left.numpy(), right.numpy())


def write_tensors(directory: Path, tensors: Mapping[str, torch.Tensor], *, shards: int = 1) -> None:
    """Write tensors as `model.safetensors`, or dealt over several shards with an index."""
    if shards == 1:
        save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[shard::shards]}
        save_file(part, directory / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor of a directory's safetensors files."""
    tensors = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            tensors |= {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    return tensors


def set_config(directory: Path, **fields: Any) -> None:
    """Change fields of `config.json`; None removes one."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
