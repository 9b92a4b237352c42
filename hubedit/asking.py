"""What a loaded model says to texts: batches, greedy answers, log-probabilities."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubedit.errors import RequestError
from hubedit.reading import TOKENS_AT_ONCE, Reader, Reading, alike, place_of
from hubedit.tracing import trace

if TYPE_CHECKING:
    import torch

    from hubedit.tracing import Trace


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


class Asking(Reader):
    """A model with its tokenizer, to be asked; what a prompt and its answer are:

    - causal: the answer follows the prompt; each token is predicted from those before it.
    - masked: the answer fills the place of the prompt's mask token (`[MASK]` and `<mask>` are read
      as the tokenizer's own), else it stands at the prompt's end. The place is as many masks wide
      as the answer has tokens, or as the prompt has masks in a row, and all are predicted at once,
      so that the probability of an answer is the product of its tokens' own.
    - seq2seq: the encoder reads the prompt and the decoder writes the answer, a text of its own.
      What a family wants around them, such as T5's sentinels, is up to the prompt and the answer.

    Texts of equal length in tokens run together without padding, so that neither masks nor the
    other texts of a batch bear on an answer beyond the rounding of matrix products.
    """

    def batch(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Tokenise texts, padded on the right: `input_ids` and `attention_mask`, int64 [n, length].

        They are what a model, or the encoder of a seq2seq model, reads. The mask is built from
        lengths, since padding may share its id with a real token.

        Raises:
            RequestError: there are no texts, or one has no tokens or too many.
        """
        rows = [self.tokens(text)[0] for text in texts]
        if not rows:
            raise RequestError("a batch needs at least one text")
        ids, mask = self._padded(rows)
        return {"input_ids": ids, "attention_mask": mask}

    def inputs(self, readings: Sequence[Reading]) -> dict[str, Any]:
        """What `model` is called with to read these together, padded on the right.

        `input_ids` and `attention_mask`, int64 [n, length], and for a seq2seq model
        `decoder_input_ids`, int64 [n, written]; no cache is kept. The logits that matter are those
        at each reading's `places`.

        Raises:
            RequestError: there are no readings.
        """
        if not readings:
            raise RequestError("a batch needs at least one text")
        ids, mask = self._padded([reading.ids for reading in readings])
        found: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self.layout.architecture == "seq2seq":
            found["decoder_input_ids"] = self._padded([reading.written for reading in readings])[0]
        if self.layout.architecture != "masked":
            found["use_cache"] = False
        return found

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of ids padded on the right, and the mask of what is real: int64 [n, longest]."""
        import torch

        length = max(len(row) for row in rows)
        padding = self.tokenizer.pad_token_id
        if padding is None:
            padding = next(iter(self._ends()), 0)
        ids = torch.full((len(rows), length), int(padding), dtype=torch.int64)
        mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids.to(self.device), mask.to(self.device)

    def trace(self, module: str, **how: Any) -> AbstractContextManager[Trace]:
        """Read or replace one module's input or output; see `hubedit.tracing.trace`."""
        return trace(self.model, module, **how)

    def next_token_logprobs(self, texts: Sequence[str]) -> torch.Tensor:
        """Log-probabilities of the first token of the answer: float32 [n, vocabulary], on the CPU.

        It is the token after a text, at its (first) mask, or the first that a decoder writes.
        """
        import torch

        found = dict(self._logits([self.next_reading(text) for text in texts]))
        return torch.cat([found[index].log_softmax(-1) for index in range(len(texts))])

    def target_logprobs(self, pairs: Sequence[tuple[str, str]]) -> list[TargetScore]:
        """Score an answer to each prompt, token by token, as the kind of model predicts them.

        Causal: prompt and answer are tokenised as one string; the answer's tokens are those that
        end within its characters, so a token that straddles the seam belongs to it. Masked and
        seq2seq: space around an answer that fills a mask, or is a text of its own, is dropped.

        Raises:
            RequestError: an answer has no tokens, nothing stands before its first one, or it does
                not fit the masks of its prompt.
        """
        import torch

        scored = [self.scored(prompt, answer) for prompt, answer in pairs]
        scores: dict[int, TargetScore] = {}
        for index, logits in self._logits([reading for reading, _ in scored]):
            target = scored[index][1]
            logprobs = logits.log_softmax(-1)
            picked = logprobs.gather(1, torch.tensor(target)[:, None])[:, 0]
            scores[index] = TargetScore(target, picked.tolist(), logprobs.argmax(-1).tolist())
        return [scores[index] for index in range(len(scored))]

    def top_tokens(self, prompt: str, k: int = 5) -> list[TopToken]:
        """The `k` likeliest first tokens of the answer, likeliest first."""
        best = self.next_token_logprobs([prompt])[0].topk(k)
        return [
            TopToken(token, str(self.tokenizer.decode([token])), logprob)
            for token, logprob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Answer each prompt greedily, without the prompt itself.

        At most `max_new_tokens` tokens, fewer where the model ends the answer or has no more
        positions; settings of the generation config such as sampling or penalties play no part. A
        masked model fills the masks as many as there are, or one mask by as many tokens as are
        likeliest on average (Jiang et al. 2020, arXiv:2010.06189).
        """
        if self.layout.architecture == "masked":
            return self._fill(prompts, max_new_tokens)
        rows = [self.tokens(prompt)[0] for prompt in prompts]
        said: dict[int, list[int]] = {}
        for group in alike([Reading(row, ()) for row in rows]):
            for index, new in zip(
                group, self._continue([rows[i] for i in group], max_new_tokens), strict=True
            ):
                said[index] = new
        if self.layout.architecture == "seq2seq":
            return [self._text(said[index]).strip() for index in range(len(rows))]
        return [self._said(row, said[index]) for index, row in enumerate(rows)]

    def greedy(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The likeliest token after each prefix of token ids, for a causal model.

        Args:
            rows: ids [T] each, two or more.

        Returns:
            For each row T − 1 ids, the first of them after one token.
        """
        readings = [Reading(row[:-1], range(len(row) - 1)) for row in rows]
        found = {index: logits.argmax(-1).tolist() for index, logits in self._logits(readings)}
        return [found[index] for index in range(len(rows))]

    def continued(self, rows: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The `count` likeliest tokens after rows of equally many ids; no token ends them.

        Fewer where the model, a causal one, has no more positions.
        """
        found: list[list[int]] = []
        size = max(1, 4 * TOKENS_AT_ONCE // (len(rows[0]) + count)) if rows else 1
        for start in range(0, len(rows), size):
            found += self._continue(rows[start : start + size], count, ends=frozenset())
        return found

    def _continue(
        self, rows: Sequence[Sequence[int]], count: int, ends: Collection[int] | None = None
    ) -> list[list[int]]:
        import torch

        given: dict[str, Any] = {}
        read = torch.tensor(rows, device=self.device)
        name, start = "input_ids", read
        if self.layout.architecture == "seq2seq":
            name = "decoder_input_ids"
            start = torch.tensor([self.opening()] * len(rows), device=self.device)
            with torch.no_grad():
                given["encoder_outputs"] = self.model.get_encoder()(input_ids=read)
        else:
            given["logits_to_keep"] = 1
        limit = self.layout.positions(self.model.config)
        if limit is not None:
            count = min(count, limit - start.shape[1])
        ends = self._ends() if ends is None else ends
        new: list[list[int]] = [[] for _ in rows]
        going = set(range(len(rows)))
        step, past = start, None
        with torch.no_grad():
            for _ in range(count):
                result = self.model(**{name: step}, past_key_values=past, use_cache=True, **given)
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

    def _fill(self, prompts: Sequence[str], count: int) -> list[str]:
        """The likeliest filling of each prompt's place, one token at each mask."""
        tried: list[tuple[int, Reading]] = []
        for index, prompt in enumerate(prompts):
            left, right, width = place_of(prompt, self.mask())
            for masks in [width] if width > 1 else range(1, count + 1):
                try:
                    tried.append((index, self.opened(left, right, masks)))
                except RequestError:
                    if masks in (1, width):
                        raise
                    break
        best: dict[int, tuple[float, list[int]]] = {}
        logits = dict(self._logits([reading for _, reading in tried]))
        for number, (index, _) in enumerate(tried):
            sure, chosen = logits[number].log_softmax(-1).max(-1)
            mean = float(sure.mean())
            if index not in best or mean > best[index][0]:
                best[index] = mean, chosen.tolist()
        texts = []
        for index, prompt in enumerate(prompts):
            new = best[index][1] if index in best else []
            open_end = not place_of(prompt, self.mask())[2]
            said = self._said(self.tokens(prompt)[0], new) if open_end else self._text(new).strip()
            texts.append(said)
        return texts

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

    def logprobs(self, readings: Sequence[Reading]) -> Iterator[tuple[int, torch.Tensor]]:
        """Each reading's index with its log-probabilities: float32 [places, vocabulary], on CPU.

        They come in groups of equal length, not in the order of the readings.
        """
        for index, logits in self._logits(readings):
            yield index, logits.log_softmax(-1)

    def _logits(self, readings: Sequence[Reading]) -> Iterator[tuple[int, torch.Tensor]]:
        """Each reading's index with its logits: float32 [places, vocabulary], on the CPU."""
        import torch

        for group in alike(readings):
            inputs: dict[str, Any] = {
                "input_ids": torch.tensor([readings[i].ids for i in group], device=self.device)
            }
            skipped = 0
            if self.layout.architecture == "causal":
                skipped = min(min(readings[index].places) for index in group)
                inputs |= {"use_cache": False}
                inputs |= {"logits_to_keep": inputs["input_ids"].shape[1] - skipped}
            elif self.layout.architecture == "seq2seq":
                written = [readings[index].written for index in group]
                inputs |= {"decoder_input_ids": torch.tensor(written, device=self.device)}
                inputs |= {"use_cache": False}
            with torch.no_grad():
                logits = self.model(**inputs).logits.float().cpu()
            for row, index in enumerate(group):
                yield index, logits[row, [place - skipped for place in readings[index].places]]

    def _ends(self) -> set[int]:
        """Ids of the tokens that end a text."""
        ends: set[int] = set()
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        for value in (configured, self.tokenizer.eos_token_id):
            ends |= {value} if isinstance(value, int) else set(value or ())
        return ends
