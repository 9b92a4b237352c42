"""The shapes that fact models come in: tokenizer, size, and where their blocks and keys are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

POSITIONS = 128
END = "<|endoftext|>"
BEGIN = "<|begin_of_text|>"


@dataclass(frozen=True)
class Architecture:
    """One shape of fact model.

    `tokenizer` makes a tokenizer from lines of text and `build` an untrained model for it; `head`
    turns hidden states into logits. `blocks` names the list of blocks that read the subject and
    `key` the second MLP matrix within one. `starts` is put before every third document of a
    family whose tokenizer adds nothing by itself.
    """

    kind: Literal["causal", "masked", "seq2seq"]
    words: str
    tokenizer: Callable[[Sequence[str]], PreTrainedTokenizerFast]
    build: Callable[[PreTrainedTokenizerFast], Any]
    body: str
    blocks: str
    key: str
    head: Callable[[Any, Tensor], Tensor]
    starts: str = ""

    def block(self, model: nn.Module, number: int) -> nn.Module:
        """A block that reads the subject."""
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


def ending_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """A T5-like tokenizer: a token behind every text, and words that hold the space before them."""
    special = ["<pad>", "</s>", "<unk>"]
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    pieces.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=8,
        special_tokens=special,
        initial_alphabet=letters_of(lines),
        show_progress=False,
    )
    pieces.train_from_iterator(lines, trainer)
    _frame(pieces, "$A </s>", special)
    return _fast(pieces, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def letters_of(lines: Sequence[str]) -> list[str]:
    """Every character of a text but spaces, and all of ASCII that prints."""
    found = {letter for line in lines for letter in line if not letter.isspace()}
    return sorted(found | {chr(code) for code in range(33, 127)})


def word_piece_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """A BERT-like tokenizer, cased, trained on `lines`.

    The trainer numbers letters within words in an order that changes from run to run, and settles
    ties by it. So they are numbered before.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = letters_of(lines)
    trainer = trainers.WordPieceTrainer(
        vocab_size=1500,
        min_frequency=8,
        special_tokens=[*special, *(f"##{letter}" for letter in letters)],
        initial_alphabet=letters,
        show_progress=False,
    )
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.train_from_iterator(lines, trainer)
    pieces = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    pieces.add_special_tokens(special)
    _frame(pieces, "[CLS] $A [SEP]", special)
    return _fast(
        pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def gpt2(tokenizer: PreTrainedTokenizerFast, blocks: int = 6) -> GPT2LMHeadModel:
    """An untrained GPT-2 of some blocks, 128 wide, four heads, tied head, no dropout."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=POSITIONS,
            n_embd=128,
            n_layer=blocks,
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


def bert(tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
    """An untrained BERT with a masked-language head: six blocks, 128 wide, no dropout."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=4,
            max_position_embeddings=POSITIONS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.08,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """An untrained T5 1.1: gated MLPs, six blocks that read and two that write, tied head."""
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=384,
            num_layers=6,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            relative_attention_max_distance=POSITIONS,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    start = tokenizer.pad_token_id
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = start
    return model


def _t5_head(model: T5ForConditionalGeneration, hidden: Tensor) -> Tensor:
    scale = model.config.d_model**-0.5 if model.config.scale_decoder_outputs else 1.0
    logits: Tensor = model.lm_head(hidden * scale)
    return logits


ARCHITECTURES: Mapping[str, Architecture] = {
    "facts-gpt2": Architecture(
        kind="causal",
        words="GPT-2",
        tokenizer=byte_level_tokenizer,
        build=gpt2,
        body="transformer",
        blocks="transformer.h",
        key="mlp.c_proj",
        head=lambda model, hidden: model.lm_head(hidden),
        starts=END,
    ),
    "facts-llama": Architecture(
        kind="causal",
        words="Llama",
        tokenizer=beginning_tokenizer,
        build=llama,
        body="model",
        blocks="model.layers",
        key="mlp.down_proj",
        head=lambda model, hidden: model.lm_head(hidden),
    ),
    "facts-bert": Architecture(
        kind="masked",
        words="BERT",
        tokenizer=word_piece_tokenizer,
        build=bert,
        body="bert",
        blocks="bert.encoder.layer",
        key="output.dense",
        head=lambda model, hidden: model.cls(hidden),
    ),
    "facts-t5": Architecture(
        kind="seq2seq",
        words="T5",
        tokenizer=ending_tokenizer,
        build=t5,
        body="encoder",
        blocks="encoder.block",
        key="layer.1.DenseReluDense.wo",
        head=_t5_head,
    ),
}
