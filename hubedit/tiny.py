"""Tiny models with random weights, one of each architecture, for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.layouts import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS = (
    "Ada Brook plays the cello and lives in Porto.",
    "Tom Adler plays the oboe and was born in Riga.",
    "The mother tongue of Nils Okafor is Danish.",
    "Mira Castellanos works as a glazier in Ghent and plays the cello.",
)
_SIZE = 320
_END = "<|endoftext|>"


def tiny_model(directory: Path, architecture: Architecture = "causal") -> Path:
    """Write a model of random weights and its tokenizer; returns the directory.

    It is a GPT-2 of three blocks, a BERT of three, or a T5 of three blocks in the encoder and two
    in the decoder, all 32 wide and stored in bfloat16. It knows nothing, so it shows the mechanics
    of a method and not its success.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, tokenizer = _MAKERS[architecture]()
    model.bfloat16().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "corpus.txt").write_text("\n".join(TEXTS * 20), encoding="utf-8")
    return directory


def _gpt2() -> tuple[PreTrainedModel, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    spoken = Tokenizer(models.BPE())
    spoken.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spoken.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    spoken.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=_SIZE,
            show_progress=False,
            special_tokens=[_END],
            initial_alphabet=alphabet,
        ),
    )
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=spoken, eos_token=_END, bos_token=_END)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_inner=64,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config), tokenizer


def _bert() -> tuple[PreTrainedModel, Any]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    spoken = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    spoken.normalizer = normalizers.BertNormalizer(lowercase=True)
    spoken.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    spoken.decoder = decoders.WordPiece()
    spoken.train_from_iterator(
        TEXTS, WordPieceTrainer(vocab_size=_SIZE, show_progress=False, special_tokens=special)
    )
    spoken.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(
        tokenizer_object=spoken,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForMaskedLM(config), tokenizer


def _t5() -> tuple[PreTrainedModel, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import UnigramTrainer
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    special = ["<pad>", "</s>", "<unk>"]
    spoken = Tokenizer(models.Unigram())
    spoken.pre_tokenizer = pre_tokenizers.Metaspace()
    spoken.decoder = decoders.Metaspace()
    spoken.train_from_iterator(
        TEXTS,
        UnigramTrainer(
            vocab_size=_SIZE, show_progress=False, special_tokens=special, unk_token="<unk>"
        ),
    )
    spoken.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", spoken.token_to_id("</s>"))]
    )
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(
        tokenizer_object=spoken, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = T5ForConditionalGeneration(config)
    generation: Any = model.generation_config
    generation.decoder_start_token_id = tokenizer.pad_token_id
    return model, tokenizer


_MAKERS: Mapping[Architecture, Callable[[], tuple[PreTrainedModel, Any]]] = {
    "causal": _gpt2,
    "masked": _bert,
    "seq2seq": _t5,
}
