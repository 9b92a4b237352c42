"""The second moment C = E[k kᵀ] of the keys of one matrix, and the texts it is taken over."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

import hubedit
from hubedit_rome.prefixes import first_tokens, positions, sample
from hubedit_rome.site import Site, doubles, doubles_on, forward

CANARY_TEXTS = 32
"""Texts held out of C, at most."""

CHUNK = 64
"""Texts that are tokenised and sorted by length together."""

SAVE_EVERY = 16
"""Chunks between two savings of the partial sum."""

TOKENS_AT_ONCE = 8192
"""Tokens in one forward pass, padding included (at least one text)."""

WRITTEN_AT_ONCE = 32
WRITTEN_LENGTH = 64
WRITTEN_TOP_K = 50


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


@dataclass(frozen=True)
class Texts:
    """Texts for C, the ones held out, where they come from, and a SHA-256 (hex) of them all."""

    counted: Sequence[str]
    held_out: Sequence[str]
    source: str
    digest: str


@dataclass(frozen=True)
class SecondMoment:
    """C [d, d] in float64, the number of keys it is the mean of, and its name in the store."""

    matrix: torch.Tensor
    tokens: int
    artifact: str


def tokenizer_digest(model: hubedit.EditableModel) -> str:
    """SHA-256 (hex) of the tokenizer's definition, whatever it was last asked to cut or to pad."""
    definition = json.loads(model.tokenizer.backend_tokenizer.to_str())
    definition |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


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
        MethodError: there are fewer than two texts.
    """
    if run.corpus is not None:
        texts = _thin(run.corpus.texts, config.statistics_texts + CANARY_TEXTS)
        source, digest = run.corpus.source, run.corpus.digest
    else:
        texts = _written(model, site, config.generated_tokens if keys else 0, run)
        source = "texts sampled from the model itself"
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    if len(texts) < 2:
        raise hubedit.MethodError(
            f"the corpus ({source}) has {len(texts)} texts; give one with at least a few hundred, "
            "or none at all to let the model write its own"
        )
    stride = max(-(-len(texts) // CANARY_TEXTS), 2)
    counted = [text for number, text in enumerate(texts) if number % stride]
    return Texts(counted, texts[::stride], source, digest)


def _thin(texts: Sequence[str], limit: int) -> Sequence[str]:
    """At most `limit` texts, spread evenly over all of them."""
    if len(texts) <= limit:
        return texts
    return [texts[number * len(texts) // limit] for number in range(limit)]


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


def second_moment(
    model: hubedit.EditableModel,
    site: Site,
    texts: Texts,
    config: StatisticsSettings,
    run: hubedit.RunContext,
) -> SecondMoment:
    """C = E[k kᵀ] of the inputs of the matrix (Meng et al. 2022, section 3.1), in float64.

    Padding is left out, and so is each text's first position where it is degenerate. Kept in the
    store under everything that it depends on; a killed run goes on where it stopped and ends with
    the same bytes.

    Raises:
        MethodError: no keys were found, or too few of them to solve with C and `ridge` is 0.
    """
    skip_first = model.layout.first_token_sink if config.skip_first is None else config.skip_first
    length = min(config.statistics_length, positions(model))
    key = {
        "kind": "second-moment",
        "format": 1,
        "model": model.digest(ignoring=[site.weight]),
        "dtype": str(model.weight(site.weight).dtype),
        "tokenizer": tokenizer_digest(model),
        "module": site.mlp_out,
        "texts": texts.digest,
        "count": len(texts.counted),
        "length": length,
        "skip_first": skip_first,
    }

    def build(work: Path) -> None:
        with run.progress("statistics", total=len(texts.counted)) as bar:
            _accumulate(model, site, texts.counted, length, skip_first, work, bar)

    made = run.artifacts.make(key, build)
    stored = load_file(made / "second-moment.safetensors")
    tokens = int(stored["tokens"])
    width = _width(model, site)
    if tokens == 0:
        raise hubedit.MethodError(
            f"the corpus ({texts.source}) holds no token to take statistics of; give longer texts, "
            "or set covariance to false"
        )
    if tokens < width:
        short = f"C is {width} × {width}, but the corpus ({texts.source}) has only {tokens} tokens"
        if config.ridge == 0:
            raise hubedit.MethodError(f"{short}; give more texts, or set ridge above 0")
        run.log(
            f"{short}: the edit leans on the ridge of {config.ridge:g}; more texts make it better"
        )
    return SecondMoment(stored["sum"] / tokens, tokens, made.name)


def _accumulate(
    model: hubedit.EditableModel,
    site: Site,
    texts: Sequence[str],
    length: int,
    skip_first: bool,
    work: Path,
    bar: Any,
) -> None:
    """Sum k kᵀ over the texts, saving the sum so far every now and then."""
    partial = work / "partial.safetensors"
    device = doubles_on(model.device)
    width = _width(model, site)
    total, tokens, done = torch.zeros(width, width, dtype=torch.float64, device=device), 0, 0
    if partial.exists():
        stored = load_file(partial, device=str(device))
        total, tokens, done = stored["sum"], int(stored["tokens"]), int(stored["texts"])
    bar.advance(done)
    for number, start in enumerate(range(done, len(texts), CHUNK), start=1):
        chunk = texts[start : start + CHUNK]
        for keys in keys_of(model, site, chunk, length, skip_first):
            keys = doubles(keys)
            total += keys.T @ keys
            tokens += len(keys)
        done = start + len(chunk)
        if number % SAVE_EVERY == 0:
            _save(partial, total, tokens, done)
        bar.advance(len(chunk), tokens=float(tokens))
    _save(work / "second-moment.safetensors", total, tokens, done)
    partial.unlink(missing_ok=True)


def _save(path: Path, total: torch.Tensor, tokens: int, texts: int) -> None:
    whole = path.with_suffix(".tmp")
    save_file({"sum": total, "tokens": torch.tensor(tokens), "texts": torch.tensor(texts)}, whole)
    os.replace(whole, path)


@torch.no_grad()
def keys_of(
    model: hubedit.EditableModel, site: Site, texts: Sequence[str], length: int, skip_first: bool
) -> Iterator[torch.Tensor]:
    """The keys of all tokens of some texts, [n, d] at a time, short texts first."""
    rows: list[list[int]] = model.tokenizer(list(texts), truncation=True, max_length=length)[
        "input_ids"
    ]
    rows = sorted((row for row in rows if len(row) > skip_first), key=len)
    while rows:
        fitting = 1
        while fitting < len(rows) and (fitting + 1) * len(rows[fitting]) <= TOKENS_AT_ONCE:
            fitting += 1
        group, rows = rows[:fitting], rows[fitting:]
        ids = torch.zeros(len(group), len(group[-1]), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(group):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        with model.trace(site.mlp_out, stop=True) as seen:
            forward(model, {"input_ids": ids, "attention_mask": mask})
        counted = mask.bool()
        if skip_first:
            counted[:, 0] = False
        yield seen.input[counted.to(seen.input.device)]
