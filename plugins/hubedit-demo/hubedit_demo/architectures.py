"""The shapes that fact models come in: tokenizer, size, and where their blocks and keys are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

POSITIONS = 128
END = "<|endoftext|>"
BEGIN = "<|begin_of_text|>"


@dataclass(frozen=True)
class Architecture:
    """One shape of fact model.

    `tokenizer` makes a tokenizer from lines of text and `build` an untrained model for it. `body`
    is all below the head, `blocks` the list of its blocks and `key` the second MLP matrix within
    one. `starts` is put before every third document of a
    family whose tokenizer adds nothing by itself.
    """

    words: str
    tokenizer: Callable[[Sequence[str]], PreTrainedTokenizerFast]
    build: Callable[[PreTrainedTokenizerFast], Any]
    body: str
    blocks: str
    key: str
    starts: str = ""

    def block(self, model: nn.Module, number: int) -> nn.Module:
        """One of the blocks."""
        return model.get_submodule(f"{self.blocks}.{number}")


def _byte_level(
    lines: Sequence[str], special: Sequence[str], template: str | None, **roles: str
) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `lines`; `template` says which tokens are put around a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=8,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    if template:
        _frame(bpe, template, special)
    return _fast(bpe, **roles)


def _frame(words: Tokenizer, template: str, special: Sequence[str]) -> None:
    tokens = [(token, words.token_to_id(token) or 0) for token in special]
    words.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)


def _fast(words: Tokenizer, **roles: str) -> PreTrainedTokenizerFast:
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(
        tokenizer_object=words,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        **roles,
    )
    return made


def byte_level_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """A GPT-2-like tokenizer (byte-level BPE, no token added by itself) trained on `lines`."""
    return _byte_level(lines, [END], None, bos_token=END, eos_token=END, unk_token=END)


def beginning_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """A Llama-3-like tokenizer (byte-level BPE, a token put before every text)."""
    special = [BEGIN, END]
    return _byte_level(lines, special, f"{BEGIN} $A", bos_token=BEGIN, eos_token=END)


def gpt2(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """An untrained GPT-2 of six blocks, 128 wide, four heads, tied head, no dropout."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=POSITIONS,
            n_embd=128,
            n_layer=6,
            n_head=4,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


def llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama: gated MLPs, RMS norms, four heads on two keys and values, tied head."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    "facts-gpt2": Architecture(
        words="GPT-2",
        tokenizer=byte_level_tokenizer,
        build=gpt2,
        body="transformer",
        blocks="transformer.h",
        key="mlp.c_proj",
        starts=END,
    ),
    "facts-llama": Architecture(
        words="Llama",
        tokenizer=beginning_tokenizer,
        build=llama,
        body="model",
        blocks="model.layers",
        key="mlp.down_proj",
    ),
}
