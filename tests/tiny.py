"""Tiny randomly initialised models on disk, one maker for every family in the layout table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

from hubedit.layouts import LAYOUTS
from hubedit.updates import LowRank

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
_HEADED = {**_GROUPED, "head_dim": 8}
_T5 = {"num_layers": DEPTH, "d_model": WIDTH, "num_heads": HEADS, "d_ff": INNER, "d_kv": 8}
CAUSAL: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {
        "n_layer": DEPTH,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "n_inner": INNER,
        "n_positions": 128,
    },
    "gpt_neo": {
        "num_layers": DEPTH,
        "hidden_size": WIDTH,
        "num_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": 128,
        "attention_types": [[["global", "local"], 1], [["global"], 1]],
        "window_size": 16,
    },
    "gptj": {
        "n_layer": DEPTH,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "n_inner": INNER,
        "n_positions": 128,
        "rotary_dim": 4,
    },
    "gpt_neox": _ROPE,
    "opt": {
        "num_hidden_layers": DEPTH,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "ffn_dim": INNER,
        "word_embed_proj_dim": WIDTH,
        "max_position_embeddings": 128,
    },
    "llama": _GROUPED,
    "mistral": _HEADED,
    "qwen2": _GROUPED,
    "qwen3": _HEADED,
    "gemma": _HEADED,
    "gemma2": _HEADED,
    "gemma3_text": _HEADED,
    "olmo2": _GROUPED,
    "phi": _ROPE,
    "phi3": _GROUPED,
}
MASKED: Mapping[str, Mapping[str, Any]] = {
    "bert": _ROPE,
    "roberta": {**_ROPE, "max_position_embeddings": 130},
    "distilbert": {
        "n_layers": DEPTH,
        "dim": WIDTH,
        "n_heads": HEADS,
        "hidden_dim": INNER,
        "max_position_embeddings": 128,
    },
}
SEQ2SEQ: Mapping[str, Mapping[str, Any]] = {
    "t5": {**_T5, "num_decoder_layers": 2},
    "bart": {
        "d_model": WIDTH,
        "encoder_layers": DEPTH,
        "decoder_layers": 2,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": INNER,
        "decoder_ffn_dim": INNER,
        "max_position_embeddings": 128,
    },
}
CONFIGS = {**CAUSAL, **MASKED, **SEQ2SEQ}
FAMILIES = tuple(CONFIGS)


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


@cache
def framed(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a masked or seq2seq model, which adds special tokens and has a padding one.

    `bert` is WordPiece, `roberta` byte-level BPE, `t5` Unigram; each as its family is published.
    """
    special = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)],
        "t5": ["<pad>", "</s>", "<unk>", "<extra_id_1>", "<extra_id_0>"],
    }[kind]
    common: dict[str, Any] = {"show_progress": False, "special_tokens": special, "vocab_size": 320}
    frame: dict[str, Any]
    if kind == "bert":
        words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        words.normalizer = normalizers.BertNormalizer(lowercase=True)
        words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        words.decoder = decoders.WordPiece()
        words.train_from_iterator(TEXTS, trainers.WordPieceTrainer(**common))
        words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        frame = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        return PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", **frame
        )
    if kind == "roberta":
        words = Tokenizer(models.BPE())
        words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        words.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        words.train_from_iterator(TEXTS, trainers.BpeTrainer(initial_alphabet=alphabet, **common))
        words.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
        )
        frame = {
            "bos_token": "<s>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "mask_token": AddedToken("<mask>", lstrip=True, special=True),
        }
    else:
        words = Tokenizer(models.Unigram())
        words.pre_tokenizer = pre_tokenizers.Metaspace()
        words.decoder = decoders.Metaspace()
        words.train_from_iterator(TEXTS, trainers.UnigramTrainer(unk_token="<unk>", **common))
        words.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", words.token_to_id("</s>"))]
        )
        frame = {"extra_special_tokens": ["<extra_id_0>", "<extra_id_1>"]}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **frame
    )


_FRAMED = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "roberta",
    "bart": "roberta",
    "t5": "t5",
}


def auto_class(family: str) -> Any:
    """The transformers class that loads the family."""
    return {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "seq2seq": AutoModelForSeq2SeqLM,
    }[LAYOUTS[family].architecture if family in LAYOUTS else "causal"]


def config_of(family: str, **more: Any) -> Any:
    """The config of a tiny model with 64 tokens."""
    return AutoConfig.for_model(
        family,
        **{"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        | dict(CONFIGS[family])
        | more,
    )


def build(family: str, *, seed: int = 0, **more: Any) -> Any:
    """A tiny model with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class(family).from_config(config_of(family, **more), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=0.2)
    return model.eval()


def make(
    directory: Path,
    family: str = "gpt2",
    *,
    tied: bool | None = None,
    sharded: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    bos: bool = False,
    trim_offsets: bool = False,
    rename: Callable[[str], str] = lambda name: name,
    extra: Mapping[str, torch.Tensor] | None = None,
    **more: Any,
) -> Path:
    """Write a model with its tokenizer into `directory` and return it.

    `tied` is by default as the family is published, and false for causal models; `rename` maps a
    parameter's name to its name in the file; `extra` tensors are stored beside; `sharded` makes
    several weight files with an index; what else is given goes into the config.
    """
    causal = family not in _FRAMED
    words = tokenizer(bos=bos, trim_offsets=trim_offsets) if causal else framed(_FRAMED[family])
    tie = (not causal) if tied is None else tied
    ids = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if family == "t5":
        ids["decoder_start_token_id"] = words.pad_token_id
    settings = {"vocab_size": len(words), "tie_word_embeddings": tie, **ids, **more}
    model = build(family, seed=seed, **settings)
    config = model.config
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
