"""Texts that the model writes itself: prefixes, continuations, a corpus where none is given.

Models that do not write by themselves take their prefixes from the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import hubedit


def positions(model: hubedit.EditableModel) -> int:
    """The number of tokens the model can read at once."""
    return model.layout.positions(model.model.config) or 1024


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
    run: hubedit.RunContext,
    rows: Sequence[hubedit.FactEdit],
) -> list[str]:
    """The empty prefix, then sentences that end so that a prompt can follow.

    A causal model writes them; for others they are beginnings of texts of the corpus that name
    nothing of the rows.

    Args:
        lengths: pairs of (tokens, how many); the token a text starts from is counted.

    Raises:
        MethodError: the model is not causal and there is no corpus.
    """
    if model.layout.architecture == "causal":
        texts = [
            text
            for length, count in lengths
            for text in sample(model, first_tokens(model), count, length, top_k, run.generator)
        ]
    else:
        texts = _beginnings(model, lengths, run, rows)
    prefixes = [""]
    for text in texts:
        words = " ".join(text.replace("\ufffd", " ").split())
        if words:
            prefixes.append(words + (" " if words[-1] in ".!?" else ". "))
    return prefixes


def _beginnings(
    model: hubedit.EditableModel,
    lengths: Sequence[tuple[int, int]],
    run: hubedit.RunContext,
    rows: Sequence[hubedit.FactEdit],
) -> list[str]:
    """Beginnings of texts of the corpus, each text once; fewer where no more are fit."""
    texts = corpus_of(model, run).texts
    named = {
        one.strip() for row in rows for one in (row.subject, row.target, row.true_target) if one
    }
    order = iter(torch.randperm(len(texts), generator=run.generator).tolist())
    found: dict[str, None] = {}
    wanted = 0
    for length, count in lengths:
        wanted += count
        while len(found) < wanted and (number := next(order, None)) is not None:
            begun = _beginning(model, texts[number], length)
            if begun and not any(one in begun for one in named):
                found[begun] = None
    return list(found)


def _beginning(model: hubedit.EditableModel, text: str, length: int) -> str:
    """The first whole words of a text that are at most so many tokens."""
    coded = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ends = [end for _, end in coded["offset_mapping"]]
    if len(ends) <= length:
        return text
    cut = text[: ends[length - 1]]
    whole = text[len(cut)].isspace()
    return cut if whole else " ".join(cut.split()[:-1])


def corpus_of(model: hubedit.EditableModel, run: hubedit.RunContext) -> hubedit.Corpus:
    """The run's corpus, for a model that cannot write one.

    Raises:
        MethodError: there is none, or it is empty.
    """
    if run.corpus is None or not run.corpus.texts:
        raise hubedit.MethodError(
            f"a {model.layout.architecture} model writes no texts by itself; give some of those "
            "that it was trained on with --corpus FILE"
        )
    return run.corpus
