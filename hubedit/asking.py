"""What a loaded model says to texts: tokens by character, greedy answers, log-probabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubedit.errors import RequestError
from hubedit.tracing import trace

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hubedit.tracing import Trace

TOKENS_AT_ONCE = 1024
"""How many tokens one forward pass holds at most, so that logits stay small."""


@dataclass
class TargetScore:
    """Teacher-forced scores of one continuation, one entry per token.

    `logprobs` are natural logarithms; `top_ids` are the likeliest tokens at the same places.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    top_ids: Sequence[int]


@dataclass(frozen=True)
class TopToken:
    """A likely next token; `logprob` is a natural logarithm."""

    token_id: int
    text: str
    logprob: float


class Asking:
    """A causal model with its tokenizer, to be asked.

    Texts of equal length in tokens run together without padding, so that neither masks nor the
    other texts of a batch bear on an answer beyond the rounding of matrix products.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    device: torch.device

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, device: torch.device
    ) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device

    def tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text and the characters [start, end) each covers.

        Special tokens that the tokenizer adds in front are kept and cover (0, 0); those it adds
        behind are left off, so that the last token is the text's own.

        Raises:
            RequestError: the text has no tokens, or more than the model has positions.
        """
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids: list[int] = list(encoded["input_ids"])
        offsets = [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
        special = set(self.tokenizer.all_special_ids)
        while ids and text and ids[-1] in special and offsets[-1] == (0, 0):
            ids.pop()
            offsets.pop()
        limit = self._positions()
        if not ids:
            raise RequestError(f"the text {text!r} has no tokens; give one that says something")
        if limit is not None and len(ids) > limit:
            raise RequestError(
                f"a text of {len(ids)} tokens ({text[:40]!r}…) is longer than the model's {limit} "
                "positions; shorten it"
            )
        return ids, offsets

    def subject_token(self, text: str, span: tuple[int, int]) -> int:
        """Index, among the tokens of `text`, of the last that meets the characters [start, end).

        Special tokens that the tokenizer adds in front are counted.

        Raises:
            RequestError: the span lies outside the text, or no token meets it.
        """
        start, end = span
        if not 0 <= start < end <= len(text):
            raise RequestError(f"characters {start} to {end} are not within {text!r}")
        _, offsets = self.tokens(text)
        met = [
            index
            for index, (first, last) in enumerate(offsets)
            if first < last and first < end and last > start
        ]
        if not met:
            raise RequestError(
                f"no token of {text!r} covers {text[start:end]!r}; reword the prompt"
            )
        return met[-1]

    def batch(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Tokenise texts, padded on the right: `input_ids` and `attention_mask`, int64 [n, length].

        The mask is built from lengths, since padding may share its id with a real token.

        Raises:
            RequestError: there are no texts, or one has no tokens or too many.
        """
        import torch

        rows = [self.tokens(text)[0] for text in texts]
        if not rows:
            raise RequestError("a batch needs at least one text")
        length = max(len(row) for row in rows)
        padding = self.tokenizer.pad_token_id
        if padding is None:
            padding = next(iter(self._ends()), 0)
        ids = torch.full((len(rows), length), int(padding), dtype=torch.int64)
        mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    def trace(self, module: str, **how: Any) -> AbstractContextManager[Trace]:
        """Read or replace one module's input or output; see `hubedit.tracing.trace`."""
        return trace(self.model, module, **how)

    def next_token_logprobs(self, texts: Sequence[str]) -> torch.Tensor:
        """Log-probabilities of the token after each text: float32 [n, vocabulary], on the CPU."""
        import torch

        rows = [self.tokens(text)[0] for text in texts]
        found = dict(self._logits(rows, [1] * len(rows)))
        return torch.cat([found[index].log_softmax(-1) for index in range(len(rows))])

    def target_logprobs(self, pairs: Sequence[tuple[str, str]]) -> list[TargetScore]:
        """Score each continuation after its prompt, every token given the ones before it.

        Prompt and continuation are tokenised as one string; the continuation's tokens are those
        that end within its characters, so a token that straddles the seam belongs to it.

        Raises:
            RequestError: a continuation has no tokens, or nothing stands before its first one.
        """
        import torch

        rows, targets = [], []
        for prompt, continuation in pairs:
            ids, offsets = self.tokens(prompt + continuation)
            own = [index for index, (_, end) in enumerate(offsets) if end > len(prompt)]
            if not own or own[0] == 0:
                missing = "prompt" if own else "continuation"
                raise RequestError(
                    f"the {missing} of {prompt!r} + {continuation!r} has no tokens of its own"
                )
            rows.append(ids[: own[-1]])
            targets.append(ids[own[0] : own[-1] + 1])
        scores: dict[int, TargetScore] = {}
        for index, logits in self._logits(rows, [len(target) for target in targets]):
            logprobs = logits.log_softmax(-1)
            picked = logprobs.gather(1, torch.tensor(targets[index])[:, None])[:, 0]
            scores[index] = TargetScore(
                targets[index], picked.tolist(), logprobs.argmax(-1).tolist()
            )
        return [scores[index] for index in range(len(rows))]

    def top_tokens(self, prompt: str, k: int = 5) -> list[TopToken]:
        """The `k` likeliest next tokens, likeliest first."""
        best = self.next_token_logprobs([prompt])[0].topk(k)
        return [
            TopToken(token, str(self.tokenizer.decode([token])), logprob)
            for token, logprob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Continue each prompt greedily until the model ends it, without the prompt itself.

        At most `max_new_tokens` tokens, fewer where the model has no more positions; settings of
        the generation config such as sampling or penalties play no part.
        """
        rows = [self.tokens(prompt)[0] for prompt in prompts]
        said: dict[int, list[int]] = {}
        for group in _alike(rows):
            for index, new in zip(
                group, self._continue([rows[i] for i in group], max_new_tokens), strict=True
            ):
                said[index] = new
        return [self._said(row, said[index]) for index, row in enumerate(rows)]

    def _continue(self, rows: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        import torch

        limit = self._positions()
        if limit is not None:
            count = min(count, limit - len(rows[0]))
        ends = self._ends()
        new: list[list[int]] = [[] for _ in rows]
        going = set(range(len(rows)))
        step = torch.tensor(rows, device=self.device)
        past = None
        with torch.no_grad():
            for _ in range(count):
                result = self.model(
                    input_ids=step, past_key_values=past, use_cache=True, logits_to_keep=1
                )
                past = result.past_key_values
                chosen = result.logits[:, -1].argmax(-1)
                for index, token in enumerate(chosen.tolist()):
                    if token in ends:
                        going.discard(index)
                    elif index in going:
                        new[index].append(token)
                if not going:
                    break
                step = chosen[:, None]
        return new

    def _said(self, prompt: Sequence[int], new: Sequence[int]) -> str:
        """The text of new tokens as it stands after the prompt, leading space included."""
        before, whole = self._text(prompt), self._text([*prompt, *new])
        return whole[len(before) :] if whole.startswith(before) else self._text(new)

    def _text(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _logits(
        self, rows: Sequence[Sequence[int]], keep: Sequence[int]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Each row's index with its last `keep` logits: float32 [keep, vocabulary], on the CPU."""
        import torch

        for group in _alike(rows):
            ids = torch.tensor([rows[index] for index in group], device=self.device)
            most = max(keep[index] for index in group)
            with torch.no_grad():
                logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=most).logits
            logits = logits.float().cpu()
            for place, index in enumerate(group):
                yield index, logits[place, -keep[index] :]

    def _positions(self) -> int | None:
        return getattr(self.model.config, "max_position_embeddings", None)

    def _ends(self) -> set[int]:
        """Ids of the tokens that end a text."""
        ends: set[int] = set()
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        for value in (configured, self.tokenizer.eos_token_id):
            ends |= {value} if isinstance(value, int) else set(value or ())
        return ends


def _alike(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of rows of equal length, in groups of at most `TOKENS_AT_ONCE` tokens."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_length[len(row)].append(index)
    for length, indices in sorted(by_length.items()):
        size = max(1, TOKENS_AT_ONCE // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
