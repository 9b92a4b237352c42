"""Texts that the model writes itself: prefixes, continuations, a corpus where none is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import hubedit


def positions(model: hubedit.EditableModel) -> int:
    """The number of tokens the model can read at once."""
    return int(getattr(model.model.config, "max_position_embeddings", 1024))


def first_tokens(model: hubedit.EditableModel) -> list[int]:
    """What a text written from nothing starts from: the token for that, else the word “The”."""
    tokenizer = model.tokenizer
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return [int(token)]
    return list(tokenizer("The", add_special_tokens=False)["input_ids"])


@torch.no_grad()
def sample(
    model: hubedit.EditableModel,
    start: Sequence[int],
    count: int,
    length: int,
    top_k: int,
    generator: torch.Generator,
) -> list[str]:
    """Continue the tokens `start` to `length` tokens in all, `count` times, and decode the whole.

    Each token is drawn from the `top_k` likeliest by the generator, on the CPU.
    """
    tokens = torch.tensor([list(start)] * count, device=model.device)
    step, past = tokens, None
    length = min(length, positions(model))
    while tokens.shape[1] < length:
        output = model.model(
            input_ids=step,
            attention_mask=torch.ones_like(tokens),
            past_key_values=past,
            use_cache=True,
        )
        past = output.past_key_values
        logits = output.logits[:, -1].float().cpu()
        likeliest, indices = logits.topk(min(top_k, logits.shape[-1]))
        drawn = torch.multinomial(likeliest.softmax(-1), 1, generator=generator)
        step = indices.gather(1, drawn).to(tokens.device)
        tokens = torch.cat([tokens, step], dim=1)
    texts: list[str] = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def sample_prefixes(
    model: hubedit.EditableModel,
    lengths: Sequence[tuple[int, int]],
    top_k: int,
    generator: torch.Generator,
) -> list[str]:
    """The empty prefix, then sampled sentences that end so that a prompt can follow.

    Args:
        lengths: pairs of (tokens, how many); the token a text starts from is counted.
    """
    prefixes = [""]
    for length, count in lengths:
        for text in sample(model, first_tokens(model), count, length, top_k, generator):
            words = " ".join(text.replace("\ufffd", " ").split())
            if words:
                prefixes.append(words + (" " if words[-1] in ".!?" else ". "))
    return prefixes
