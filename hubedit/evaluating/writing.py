"""Texts that a model writes on by sampling, for fluency and consistency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubedit.reading import Reading, alike

if TYPE_CHECKING:
    from hubedit.asking import Asking

LENGTH = 100
"""Tokens of a text, its beginning included (Meng et al. 2022)."""
TOP_K = 5
"""Tokens that each one is drawn from, by their probabilities."""
NO_TEXT = "only a causal model writes on from a beginning"


def write_on(model: Asking, beginnings: Sequence[str], seed: int = 0) -> list[str]:
    """Each beginning with what a causal model writes on, drawn from the `TOP_K` likeliest tokens.

    Tokens that end a text do not stop it, and are left out of what is returned, so that every text
    has the same length.

    Args:
        model: a causal one.
        seed: of the draws; the same for the models that are compared.
    """
    import torch

    rows = [model.tokens(text)[0] for text in beginnings]
    limit = model.layout.positions(model.model.config) or LENGTH
    written = [list(row) for row in rows]
    for group in alike([Reading(row, ()) for row in rows]):
        generator = torch.Generator().manual_seed(seed)
        step = torch.tensor([rows[index] for index in group], device=model.device)
        past: Any = None
        with torch.no_grad():
            for _ in range(min(LENGTH, limit) - step.shape[1]):
                result = model.model(
                    input_ids=step, past_key_values=past, use_cache=True, logits_to_keep=1
                )
                past = result.past_key_values
                best = result.logits[:, -1].float().cpu().topk(TOP_K)
                drawn = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
                step = best.indices.gather(1, drawn).to(model.device)
                for index, token in zip(group, step[:, 0].tolist(), strict=True):
                    written[index].append(token)
    return [
        str(
            model.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        for ids in written
    ]
