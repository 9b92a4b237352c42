"""Prompts as a chat model is asked them: through the chat template of its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubedit.errors import RecipeError
from hubedit.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def through_template(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """The rows with every prompt as the user's message, ready for the assistant's answer.

    A beginning-of-text token that the template writes is left to the tokenizer, which adds it.

    Raises:
        RecipeError: the tokenizer has no chat template, or its template loses the subject.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise RecipeError(
            "the recipe asks for chat prompts and the tokenizer has no chat template; leave out "
            "`chat: true`, or take a chat model"
        )
    first = (
        tokenizer.bos_token if tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id] else ""
    )

    def write(prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        text = str(
            tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        )
        if prompt.count("{}") != text.count("{}"):
            raise RecipeError("the chat template does not keep `{}` of a prompt as it is")
        return text.removeprefix(str(first)) if first else text

    return [row.with_prompts(write) for row in rows]


def template_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 (hex) of the chat template."""
    template = tokenizer.chat_template
    text = template if isinstance(template, str) else repr(sorted((template or {}).items()))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
