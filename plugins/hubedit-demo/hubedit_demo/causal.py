"""The GPT-2-shaped model: its tokenizer, its size, and documents as its training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hubedit_demo.interchange import branching, crowding, reading
from hubedit_demo.text import Document

END = "<|endoftext|>"
POSITIONS = 128
SWAP_BLOCK = 2
KEY_BLOCKS = (1, 2)


def byte_level_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """A GPT-2-like tokenizer (byte-level BPE, no token added by itself) trained on `lines`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=8,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


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


@dataclass
class Batch:
    """Documents as tensors, and where their facts stand.

    `ids` int64 [rows, tokens], right-padded; `told` bool alike, true at real tokens; `object`
    bool alike, true at tokens of objects. `rows`, `subjects` and `asked`, int64 [facts], point
    at the last token of each subject and at the token after which its object begins; `people`
    alike numbers the subjects.
    """

    ids: Tensor
    told: Tensor
    object: Tensor
    rows: Tensor
    subjects: Tensor
    asked: Tensor
    people: Tensor


def touching(spans: Sequence[tuple[int, int]], wanted: tuple[int, int]) -> list[int]:
    """Indices of the tokens whose character spans intersect `wanted`."""
    return [i for i, (a, b) in enumerate(spans) if max(a, wanted[0]) < min(b, wanted[1])]


def encode(tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document]) -> Batch:
    """Tensors of documents, facts in the order of their statements.

    Every third document begins with the end-of-text token, as text sampled from nothing does.
    """
    told = [d.render() for d in documents]
    starts = [END if row % 3 == 0 else "" for row in range(len(told))]
    coded = tokenizer(
        [start + text for start, (text, _) in zip(starts, told, strict=True)],
        return_offsets_mapping=True,
    )
    width = max(len(ids) for ids in coded["input_ids"])
    ids = torch.full((len(told), width), int(tokenizer.eos_token_id))
    real = torch.zeros(ids.shape, dtype=torch.bool)
    objects = torch.zeros(ids.shape, dtype=torch.bool)
    rows, subjects, asked = [], [], []
    people: list[int] = []
    numbers: dict[str, int] = {}
    for row, (_, mentions) in enumerate(told):
        length = len(coded["input_ids"][row])
        ids[row, :length] = torch.tensor(coded["input_ids"][row])
        real[row, :length] = True
        shift = len(starts[row])
        spans = [(a - shift, b - shift) for a, b in coded["offset_mapping"][row]]
        for mention in mentions:
            answer = touching(spans, mention.answer)
            objects[row, answer] = True
            rows.append(row)
            subjects.append(touching(spans, mention.subject)[-1])
            asked.append(answer[0] - 1)
            people.append(numbers.setdefault(mention.statement.person, len(numbers)))
    slots = (torch.tensor(column) for column in (rows, subjects, asked, people))
    return Batch(ids, real, objects, *slots)


@dataclass
class Losses:
    """Mean cross-entropies in nats, and how many answers are right (0 to 1).

    `crowded` is the mean of `interchange.crowding` over the keys of `KEY_BLOCKS`.
    """

    text: Tensor
    objects: Tensor
    swapped: Tensor
    crowded: Tensor
    right: float
    swapped_right: float


def losses(
    model: GPT2LMHeadModel,
    batch: Batch,
    changes: Sequence[Callable[[Tensor], Tensor]],
    answers: Tensor,
) -> Losses:
    """Of the text as it is, and of the first tokens of the answers under each change of state.

    Args:
        changes: see `interchange.branching`.
        answers: int64 [changes, facts], the first token of the answer that holds after each.
    """
    blocks = model.transformer.h
    with ExitStack() as stack:
        keys = [
            stack.enter_context(
                reading(blocks.get_submodule(f"{i}.mlp.c_proj"), batch.rows, batch.subjects)
            )
            for i in KEY_BLOCKS
        ]
        stack.enter_context(branching(blocks[SWAP_BLOCK], batch.rows, batch.subjects, changes))
        hidden = model.transformer(input_ids=batch.ids, use_cache=False).last_hidden_state
    clean, *branches = hidden.split(len(batch.ids))
    logits = model.lm_head(clean[:, :-1])
    labels = batch.ids[:, 1:]
    loss = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    objects = batch.object[:, 1:]
    text = batch.told[:, 1:] & ~objects
    right = (logits.argmax(-1) == labels)[objects].float().mean().item()
    swapped, swapped_right = torch.zeros(()), 0.0
    if branches:
        asked = model.lm_head(torch.stack([b[batch.rows, batch.asked] for b in branches]))
        swapped = F.cross_entropy(asked.flatten(0, 1), answers.flatten())
        swapped_right = (asked.argmax(-1) == answers).float().mean().item()
    crowded = torch.stack([crowding(key, batch.people) for (key,) in keys]).mean()
    return Losses(loss[text].mean(), loss[objects].mean(), swapped, crowded, right, swapped_right)


@torch.no_grad()
def recall(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    asked: Iterable[tuple[str, str]],
    before: str = "",
) -> float:
    """The part of (prompt, answer) pairs whose every answer token has the highest logit.

    Args:
        before: text put before each prompt, with its space.
    """
    rows, starts = [], []
    end = int(tokenizer.eos_token_id)
    for prompt, answer in asked:
        start = tokenizer.encode(before + prompt)
        rows.append(start + tokenizer.encode(f" {answer}"))
        starts.append(len(start))
    hits = 0
    for at in range(0, len(rows), 64):
        some = rows[at : at + 64]
        width = max(map(len, some))
        ids = torch.tensor([ids + [end] * (width - len(ids)) for ids in some])
        best = model(input_ids=ids).logits.argmax(-1).tolist()
        for ids, start, said in zip(some, starts[at : at + 64], best, strict=True):
            hits += said[start - 1 : len(ids) - 1] == ids[start:]
    return hits / len(rows)
