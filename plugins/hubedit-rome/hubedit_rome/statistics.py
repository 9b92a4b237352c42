"""The second moment C = E[k kᵀ] of the keys of one matrix, and the texts it is taken over."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

import hubedit
from hubedit.moments import SecondMoment, Texts, divide, second_moments, tokenizer_digest
from hubedit_rome.prefixes import corpus_of, first_tokens, positions, sample
from hubedit_rome.site import Site

WRITTEN_AT_ONCE = 32
WRITTEN_LENGTH = 64
WRITTEN_TOP_K = 50

__all__ = ["SecondMoment", "StatisticsSettings", "Texts", "gather_texts", "moments_of"]


class StatisticsSettings(Protocol):
    """The settings that statistics follow; `RomeConfig` describes each."""

    @property
    def statistics_texts(self) -> int:
        """Texts of the corpus, at most."""

    @property
    def statistics_length(self) -> int:
        """Tokens read of each text, at most."""

    @property
    def generated_tokens(self) -> int:
        """Without a corpus: tokens that the model writes, per row of C."""

    @property
    def skip_first(self) -> bool | None:
        """Whether first positions are left out; None: as the layout says."""

    @property
    def ridge(self) -> float:
        """Damping of C; 0 refuses a C of too few tokens."""


def gather_texts(
    model: hubedit.EditableModel,
    site: Site,
    config: StatisticsSettings,
    run: hubedit.RunContext,
    *,
    keys: bool = True,
) -> Texts:
    """Take the recipe's corpus, or let the model write one, and hold every n-th text out.

    Without `keys` what the model writes need not do for a C, only for the texts held out.

    Raises:
        MethodError: there are fewer than two texts, or none and the model cannot write any.
    """
    if run.corpus is not None or model.layout.architecture != "causal":
        return divide(corpus_of(model, run), config.statistics_texts)
    texts = _written(model, site, config.generated_tokens if keys else 0, run)
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    corpus = hubedit.Corpus(texts, "texts sampled from the model itself", digest)
    return divide(corpus, len(texts))


def _written(
    model: hubedit.EditableModel, site: Site, per_row: int, run: hubedit.RunContext
) -> list[str]:
    """Texts that the model samples from nothing, kept in the store."""
    length = min(WRITTEN_LENGTH, positions(model))
    wanted = per_row * _width(model, site)
    batches = max(-(-wanted // (WRITTEN_AT_ONCE * (length - 1))), 2)
    key = {
        "kind": "written-texts",
        "format": 1,
        "model": model.digest(),
        "tokenizer": tokenizer_digest(model),
        "seed": run.seed,
        "batches": batches,
        "length": length,
        "top_k": WRITTEN_TOP_K,
    }

    def build(work: Path) -> None:
        with run.progress("texts for statistics", total=batches) as bar:
            for number in range(batches):
                part = work / f"{number:06d}.json"
                if not part.exists():
                    generator = torch.Generator().manual_seed(run.seed * 1_000_003 + number)
                    start = first_tokens(model)
                    texts = sample(model, start, WRITTEN_AT_ONCE, length, WRITTEN_TOP_K, generator)
                    whole = part.with_suffix(".tmp")
                    whole.write_text(json.dumps(texts), encoding="utf-8")
                    os.replace(whole, part)
                bar.advance()

    made = run.artifacts.make(key, build)
    parts = [
        json.loads((made / f"{n:06d}.json").read_text(encoding="utf-8")) for n in range(batches)
    ]
    return [text for part in parts for text in part if text.strip()]


def _width(model: hubedit.EditableModel, site: Site) -> int:
    """Length of a key."""
    return model.weight(site.weight).shape[0 if site.conv1d else 1]


def moments_of(
    model: hubedit.EditableModel,
    sites: Sequence[Site],
    texts: Texts,
    config: StatisticsSettings,
    run: hubedit.RunContext,
) -> list[SecondMoment]:
    """C = E[k kᵀ] of the inputs of some matrices, by one pass for all; see `hubedit.moments`.

    Raises:
        MethodError: no keys were found, or too few of them to solve with C and `ridge` is 0.
    """
    moments = second_moments(
        model,
        [site.mlp_out for site in sites],
        texts,
        run,
        length=config.statistics_length,
        skip_first=config.skip_first,
    )
    for moment in moments:
        width, tokens = moment.width, moment.tokens
        if tokens >= width:
            continue
        short = f"C is {width} × {width}, but the corpus ({texts.source}) has only {tokens} tokens"
        if config.ridge == 0:
            raise hubedit.MethodError(f"{short}; give more texts, or set ridge above 0")
        run.log(
            f"{short}: the edit leans on the ridge of {config.ridge:g}; more texts make it better"
        )
        break
    return moments
