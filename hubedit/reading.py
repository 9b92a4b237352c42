"""What a model reads to answer a prompt: tokens by character, masks opened, decoders started.

Errors say counts and quote no text: it may be one that is to be forgotten.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubedit.errors import RequestError, UnsupportedModelError
from hubedit.layouts import Layout

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TOKENS_AT_ONCE = 1024
"""How many tokens one forward pass holds at most, so that logits stay small."""
_SAY = "give a prompt and an answer that say something"
MASKS = ("[MASK]", "<mask>")
"""What a prompt may write for the mask token of a masked model, beside the tokenizer's own name."""


@dataclass(frozen=True)
class Reading:
    """One forward pass: what the model (or its encoder) reads, and where its logits matter.

    `written` is what the decoder of a seq2seq model has written so far; `places` then count its
    tokens. `subject` is the index among `ids` of the subject's last token, if one was named.
    """

    ids: Sequence[int]
    places: Sequence[int]
    written: Sequence[int] = ()
    subject: int | None = None


def alike(readings: Sequence[Reading]) -> Iterator[list[int]]:
    """Indices of readings of equal length, in groups of at most `TOKENS_AT_ONCE` tokens."""
    by_length: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, reading in enumerate(readings):
        by_length[len(reading.ids), len(reading.written)].append(index)
    for lengths, indices in sorted(by_length.items()):
        size = max(1, TOKENS_AT_ONCE // sum(lengths))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def place_of(prompt: str, mask: str) -> tuple[str, str, int]:
    """What stands left and right of a prompt's masks, and how many they are.

    Raises:
        RequestError: there are masks in more than one place.
    """
    one = "(?:" + "|".join(map(re.escape, {mask, *MASKS})) + ")"
    found = list(re.finditer(rf"{one}(?:\s*{one})*", prompt))
    if not found:
        return prompt, "", 0
    if len(found) > 1:
        raise RequestError(f"the prompt has masks in {len(found)} places; leave one place open")
    run = found[0]
    return prompt[: run.start()], prompt[run.end() :], len(re.findall(one, run.group()))


def last_met(text: str, offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> int:
    """Index of the last token that meets the characters [start, end) of a text.

    Raises:
        RequestError: the span lies outside the text, or no token meets it.
    """
    start, end = span
    if not 0 <= start < end <= len(text):
        raise RequestError(f"characters {start} to {end} are not within a text of {len(text)}")
    met = [
        index
        for index, (first, last) in enumerate(offsets)
        if first < last and first < end and last > start
    ]
    if not met:
        raise RequestError(f"no token covers characters {start} to {end}; reword the prompt")
    return met[-1]


def _without_masks(
    span: tuple[int, int] | None, prompt: str, left: str, right: str
) -> tuple[int, int] | None:
    """Characters of a prompt as they count once its masks between left and right are gone."""
    if span is None or span[0] < len(left):
        return span
    gone = len(prompt) - len(left) - len(right)
    return span[0] - gone, span[1] - gone


class Reader:
    """A model's tokenizer, and how prompts and answers are put to a model of its architecture."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    layout: Layout
    device: torch.device

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        layout: Layout,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.layout, self.device = model, tokenizer, layout, device

    def tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text and the characters [start, end) each covers.

        Special tokens that the tokenizer adds cover (0, 0). Those it adds behind are left off for
        causal models, so that the last token is the text's own; encoders read them.

        Raises:
            RequestError: the text has no tokens, or more than the model has positions.
        """
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids: list[int] = list(encoded["input_ids"])
        offsets = [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
        if self.layout.architecture == "causal" and text:
            end = self._own(ids, offsets).stop
            ids, offsets = ids[:end], offsets[:end]
        if not ids:
            raise RequestError(
                f"a text of {len(text):,} characters has no tokens; give one that says something"
            )
        self._check_length(len(ids), text)
        return ids, offsets

    def _own(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> range:
        """Where the text's own tokens stand, between the special ones that the tokenizer adds."""
        special = set(self.tokenizer.all_special_ids)
        added = [
            token in special and span == (0, 0) for token, span in zip(ids, offsets, strict=True)
        ]
        if all(added):
            return range(0)
        return range(added.index(False), len(added) - added[::-1].index(False))

    def _check_length(self, count: int, text: str) -> None:
        limit = self.layout.positions(self.model.config)
        if limit is not None and count > limit:
            raise RequestError(
                f"a text of {count:,} tokens ({len(text):,} characters) is longer than the "
                f"model's {limit:,} positions; shorten it, or cut it into rows of its own"
            )

    def subject_token(self, text: str, span: tuple[int, int]) -> int:
        """Index, among the tokens of `text`, of the last that meets the characters [start, end).

        Special tokens that the tokenizer adds in front are counted.

        Raises:
            RequestError: the span lies outside the text, or no token meets it.
        """
        return last_met(text, self.tokens(text)[1], span)

    def next_reading(self, text: str, subject: tuple[int, int] | None = None) -> Reading:
        """What to read for the first token of the answer.

        Args:
            subject: characters [start, end) of the text that name the subject.
        """
        if self.layout.architecture == "masked":
            left, right, width = place_of(text, self.mask())
            subject = _without_masks(subject, text, left, right)
            opened = self.opened(left, right, max(width, 1), subject)
            return replace(opened, places=opened.places[:1])
        ids, offsets = self.tokens(text)
        at = None if subject is None else last_met(text, offsets, subject)
        if self.layout.architecture == "causal":
            return Reading(ids, [len(ids) - 1], subject=at)
        opening = self.opening()
        return Reading(ids, [len(opening) - 1], opening, at)

    def scored(
        self, prompt: str, answer: str, subject: tuple[int, int] | None = None
    ) -> tuple[Reading, list[int]]:
        """What to read to score an answer, and the answer's tokens, one for each place.

        Args:
            answer: as it continues the prompt, with its space.
            subject: characters [start, end) of the prompt that name the subject.

        Raises:
            RequestError: the answer has no tokens, or does not fit the prompt's masks; no token
                meets the subject, or the model cannot read so many.
        """
        if self.layout.architecture == "causal":
            return self._following(prompt, answer, subject)
        if self.layout.architecture == "masked":
            return self._filling(prompt, answer, subject)
        ids, offsets = self.tokens(prompt)
        at = None if subject is None else last_met(prompt, offsets, subject)
        opening, target = self._answer(answer.strip())
        if not target:
            raise RequestError(f"the continuation has no tokens; {_SAY}")
        places = range(len(opening) - 1, len(opening) + len(target) - 1)
        return Reading(ids, places, [*opening, *target[:-1]], at), target

    def _following(
        self, prompt: str, answer: str, subject: tuple[int, int] | None
    ) -> tuple[Reading, list[int]]:
        text = prompt + answer
        ids, offsets = self.tokens(text)
        own = [index for index, (_, end) in enumerate(offsets) if end > len(prompt)]
        if not own or own[0] == 0:
            missing = "prompt" if own else "continuation"
            raise RequestError(f"the {missing} has no tokens of its own; {_SAY}")
        at = None if subject is None else last_met(text, offsets, subject)
        target = ids[own[0] : own[-1] + 1]
        return Reading(ids[: own[-1]], range(own[0] - 1, own[-1]), subject=at), target

    def _filling(
        self, prompt: str, answer: str, subject: tuple[int, int] | None
    ) -> tuple[Reading, list[int]]:
        left, right, width = place_of(prompt, self.mask())
        answer = answer.strip() if width else answer
        ids, offsets = self.tokens(left + answer + right)
        # The space before an answer is part of it, and may be a token of its own.
        first, last = len(left.rstrip()), len(left) + len(answer)
        target = [
            ids[index]
            for index in self._own(ids, offsets)
            if (offsets[index][1] > first or not first) and offsets[index][0] < last
        ]
        if width > 1 and len(target) != width:
            raise RequestError(
                f"the answer is {len(target):,} tokens and the prompt has {width} masks; one "
                "mask is widened to as many as an answer needs"
            )
        if not target:
            raise RequestError(f"the continuation has no tokens; {_SAY}")
        subject = _without_masks(subject, prompt, left, right)
        return self.opened(left, right, len(target), subject), target

    def opened(
        self, left: str, right: str, masks: int, subject: tuple[int, int] | None = None
    ) -> Reading:
        """A text with a place of some masks between what stands left and right of it.

        Args:
            subject: characters [start, end) of `left + right` that name the subject.
        """
        mask = self.mask()
        place = left.rstrip() + mask * masks
        text = place + right
        ids, offsets = self.tokens(text)
        at = None
        if subject is not None:
            start, end = subject
            moved = len(place) - len(left)
            if start >= len(left):
                start, end = start + moved, end + moved
            elif end <= len(left):
                end = min(end, len(left.rstrip()))
            at = last_met(text, offsets, (start, end))
        mask_id = self.tokenizer.convert_tokens_to_ids(mask)
        places = [index for index, token in enumerate(ids) if token == mask_id]
        return Reading(ids, places, subject=at)

    def mask(self) -> str:
        """How the tokenizer writes the mask token.

        Raises:
            UnsupportedModelError: it has none.
        """
        mask = self.tokenizer.mask_token
        if not isinstance(mask, str):
            raise UnsupportedModelError(
                "the tokenizer of this masked model names no mask token; set mask_token in "
                "tokenizer_config.json"
            )
        return mask

    def _answer(self, text: str) -> tuple[list[int], list[int]]:
        """What a decoder starts from, and the tokens of an answer it writes."""
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        own = self._own(ids, [(int(start), int(end)) for start, end in encoded["offset_mapping"]])
        settings = (self.model.generation_config, self.model.config)
        starts = (getattr(each, "decoder_start_token_id", None) for each in settings)
        start = next((token for token in starts if token is not None), None)
        if start is None:
            raise UnsupportedModelError(
                "nothing says what the decoder starts from; set decoder_start_token_id in "
                "config.json"
            )
        opening = [int(start), *ids[: own.start]]
        target = ids[own.start : own.stop]
        self._check_length(len(opening) + len(target) - 1, text)
        return opening, target

    def opening(self) -> list[int]:
        """What a decoder has before its answer: its start token, and what begins every text."""
        return self._answer("a")[0]
