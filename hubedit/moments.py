"""Second moments E[k kᵀ] of what enters some modules: one pass over texts for all, resumable."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.artifacts import ArtifactStore
from hubedit.errors import MethodError, UnsupportedModelError
from hubedit.inputs import batches, read_inputs
from hubedit.layouts import Layout
from hubedit.method import Artifacts, Corpus, EditableModel, RunContext

if TYPE_CHECKING:
    import torch

KIND = "second-moment"
FILE = "second-moment.safetensors"
FACTS = "facts.json"

HELD_OUT = 32
"""Texts held out of the statistic, at most."""

CHUNK = 64
"""Texts that are tokenised and sorted by length together."""

SAVE_EVERY = 16
"""Chunks between two savings of the sums so far."""

STRIP = 512
"""Rows of a sum that are made at once: only what is on or right of the diagonal is computed."""

PROBES = 4
"""Random directions along which the spread over texts is measured."""


@dataclass(frozen=True)
class Texts:
    """Texts that are counted, the ones held out, where they come from, and a SHA-256 (hex)."""

    counted: Sequence[str]
    held_out: Sequence[str]
    source: str
    digest: str


@dataclass(frozen=True)
class SecondMoment:
    """C [d, d] in float64 on the CPU, the number of keys it is the mean of, its name in the store.

    `error` is the standard error of C relative to its norm, ‖Ĉ − C‖ / ‖C‖ (Frobenius), as the
    spread over the texts tells it; None of fewer than two texts.
    """

    module: str
    matrix: torch.Tensor
    tokens: int
    error: float | None
    artifact: str

    @property
    def width(self) -> int:
        """Length of a key, d."""
        return int(self.matrix.shape[0])

    def quality(self) -> str:
        """How far the statistic can be trusted, in words."""
        return quality(self.tokens, self.width, self.error)


def quality(tokens: int, width: int, error: float | None) -> str:
    """How far a statistic of so many keys of that length can be trusted, in words.

    Args:
        error: see `SecondMoment.error`.
    """
    known = "spread unknown" if error is None else f"± {error:.1%}"
    if tokens < width:
        return f"{known}; singular: {tokens} tokens for {width} directions"
    return f"{known}; {tokens / width:.1f} tokens per direction"


def divide(corpus: Corpus, limit: int) -> Texts:
    """Take at most `limit` texts to count, spread evenly, and hold every n-th out.

    Raises:
        MethodError: there are fewer than two texts.
    """
    texts, most = corpus.texts, limit + HELD_OUT
    if len(texts) > most:
        texts = [texts[number * len(texts) // most] for number in range(most)]
    if len(texts) < 2:
        raise MethodError(
            f"the corpus ({corpus.source}) has {len(texts)} texts; give one with at least a few "
            "hundred"
        )
    stride = max(-(-len(texts) // HELD_OUT), 2)
    counted = [text for number, text in enumerate(texts) if number % stride]
    return Texts(counted, texts[::stride], corpus.source, corpus.digest)


def tokenizer_digest(model: EditableModel) -> str:
    """SHA-256 (hex) of the tokenizer's definition, whatever it was last asked to cut or to pad."""
    definition = json.loads(model.tokenizer.backend_tokenizer.to_str())
    definition |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def second_moments(
    model: EditableModel,
    modules: Sequence[str],
    texts: Texts,
    run: RunContext,
    *,
    length: int,
    skip_first: bool | None = None,
) -> list[SecondMoment]:
    """C = E[k kᵀ] of the inputs of some matrices, uncentred (Meng et al. 2022, section 3.1).

    Products are summed in float64. What the store has is read; all others are made in one pass that
    ends at the deepest of them. A killed pass goes on where it stopped and ends with the same
    bytes. Padding is left out, as are special tokens that the tokenizer of an encoder adds, and
    each text's first position where it is degenerate.

    Args:
        modules: names of matrices that belong to blocks.
        length: tokens read of each text, at most; never more than the model reads.
        skip_first: leave first positions out; None: as the layout says.

    Raises:
        MethodError: the texts hold no token to count.
        UnsupportedModelError: a module is in no block, or in the decoder of a seq2seq model.
    """
    length, skip = settled(model, length, skip_first)
    keys = {name: statistic_key(model, name, texts, length, skip) for name in modules}

    def build(works: Mapping[str, Path]) -> None:
        passing = _Pass(model, works, texts, length, skip)
        with run.progress("statistics", total=len(texts.counted)) as bar:
            passing.run(bar)

    made = _together(run.artifacts, keys, build)
    return [_loaded(name, made[name], texts.source) for name in modules]


def settled(model: EditableModel, length: int, skip_first: bool | None) -> tuple[int, bool]:
    """How many tokens of a text are read, and whether without the first: see `second_moments`."""
    most = model.layout.positions(model.model.config)
    skip = model.layout.reader.first_token_sink if skip_first is None else skip_first
    return length if most is None else min(length, most), skip


def statistic_key(
    model: EditableModel, module: str, texts: Texts, length: int, skip_first: bool
) -> dict[str, Any]:
    """All that a statistic depends on: the weights below the module, tokenizer, texts, settings."""
    weight = f"{module}.weight"
    return {
        "kind": KIND,
        "format": 2,
        "model": model.digest(ignoring=[weight, *_above(model, module)]),
        "dtype": str(model.weight(weight).dtype),
        "tokenizer": tokenizer_digest(model),
        "module": module,
        "texts": texts.digest,
        "count": len(texts.counted),
        "length": length,
        "skip_first": skip_first,
    }


def _above(model: EditableModel, module: str) -> list[str]:
    """The parameters of the blocks above a module's: its input does not depend on them."""
    layout, layer = _stack_of(model.layout, module)
    beginning = layout.block.split("{}")[0]
    return [
        name
        for name, _ in model.model.named_parameters()
        if name.startswith(beginning) and (layout.layer_of(name) or 0) > layer
    ]


def _stack_of(layout: Layout, module: str) -> tuple[Layout, int]:
    """The stack that a module belongs to, and the number of its block.

    Raises:
        UnsupportedModelError: it belongs to none, or to one that does not read texts.
    """
    stack = layout.reader
    layer = stack.layer_of(module + ".weight")
    if layer is None or not module.startswith(stack.block.split("{}")[0]):
        where = "the encoder" if layout.encoder else "a block"
        raise UnsupportedModelError(
            f"{module} is no module of {where}, and statistics are taken over what reads texts; "
            f"name one such as {stack.at('mlp_out', 0)}"
        )
    return stack, layer


def _together(
    store: Artifacts,
    keys: Mapping[str, Mapping[str, Any]],
    build: Callable[[Mapping[str, Path]], None],
) -> dict[str, Path]:
    """Make all artifacts that are not there by one call of `build`, each under its own key."""
    made: dict[str, Path] = {}
    # in one order for everybody, so that two runs never wait for each other
    order = sorted(keys, key=lambda name: ArtifactStore.address(keys[name]))

    def nest(rest: Sequence[str], works: Mapping[str, Path]) -> None:
        if not rest:
            if works:
                build(works)
            return
        reached = False

        def enter(work: Path) -> None:
            nonlocal reached
            reached = True
            nest(rest[1:], {**works, rest[0]: work})

        made[rest[0]] = store.make(keys[rest[0]], enter)
        if not reached:
            nest(rest[1:], works)

    nest(order, {})
    return made


def _loaded(module: str, made: Path, source: str) -> SecondMoment:
    from safetensors.torch import load_file

    stored = load_file(made / FILE)
    tokens = int(stored["tokens"])
    if tokens == 0:
        raise MethodError(
            f"the corpus ({source}) holds no token to take statistics of; give longer texts"
        )
    facts = json.loads((made / FACTS).read_text(encoding="utf-8"))
    return SecondMoment(module, stored["sum"] / tokens, tokens, facts["error"], made.name)


class _Sum:
    """Σ k kᵀ of one module so far, and what its spread over texts is told from.

    With V [d, PROBES] of ±1, y = (Σ k kᵀ) V over the keys of one text and n their number: `moved`
    is Σ n y, `squares` Σ ‖y‖², `lengths` Σ n² and `read` the number of texts with keys.
    """

    def __init__(self, width: int, work: Path, device: torch.device) -> None:
        import torch
        from safetensors.torch import load_file

        generator = torch.Generator().manual_seed(width)
        signs = torch.randint(0, 2, (width, PROBES), generator=generator) * 2.0 - 1
        self.probes = signs.to(device)
        self.path = work / FILE
        self.done = self.tokens = self.read = self.lengths = 0
        self.squares = 0.0
        self.total = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.moved = torch.zeros(width, PROBES, dtype=torch.float64, device=device)
        if self.path.exists():
            stored = load_file(self.path, device=str(device))
            # into memory of our own: matrix products round by how their operands are aligned
            self.total.copy_(stored["sum"])
            self.moved.copy_(stored["moved"])
            self.done, self.tokens = int(stored["texts"]), int(stored["tokens"])
            self.read, self.lengths = int(stored["read"]), int(stored["lengths"])
            self.squares = float(stored["squares"])

    def add(self, hidden: torch.Tensor, counted: torch.Tensor) -> None:
        """Count the keys of some texts.

        Args:
            hidden: [texts, tokens, d].
            counted: bool [texts, tokens], which of them are keys.
        """
        import torch

        hidden, counted = hidden.to(self.total.device), counted.to(self.total.device)
        keys = hidden[counted].double()
        width = keys.shape[1]
        for start in range(0, width, STRIP):
            strip = slice(start, start + STRIP)
            self.total[strip, start:].addmm_(keys[:, strip].T, keys[:, start:])
        along = (hidden.float() @ self.probes).masked_fill(~counted[..., None], 0)
        moved = torch.bmm(hidden.float().mT, along).double()
        own = counted.sum(1)
        self.moved += (own[:, None, None] * moved).sum(0)
        self.squares += float(moved.square().sum())
        self.lengths += int(own.square().sum())
        self.read += int((own > 0).sum())
        self.tokens += len(keys)

    def save(self) -> None:
        """Write the sum so far, whole or not at all."""
        import torch
        from safetensors.torch import save_file

        whole = self.path.with_suffix(".tmp")
        counts = {"texts": self.done, "tokens": self.tokens, "read": self.read}
        save_file(
            {
                "sum": self.total,
                "moved": self.moved,
                "squares": torch.tensor(self.squares, dtype=torch.float64),
                "lengths": torch.tensor(self.lengths),
                **{name: torch.tensor(count) for name, count in counts.items()},
            },
            whole,
        )
        os.replace(whole, self.path)

    def finish(self, source: str) -> None:
        """Fill in what is left of the diagonal, write the sum, and what is known of it."""
        total = self.total
        for start in range(0, total.shape[0], STRIP):
            end = start + STRIP
            total[end:, start:end] = total[start:end, end:].T
            corner = total[start:end, start:end]
            corner.copy_(corner.triu() + corner.triu(1).T)
        self.save()
        facts = {
            "tokens": self.tokens,
            "texts": self.done,
            "width": int(total.shape[0]),
            "source": source,
            "error": self.error(),
        }
        text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
        (self.path.parent / FACTS).write_text(text + "\n", encoding="utf-8")

    def error(self) -> float | None:
        """The standard error of C relative to its norm, from the spread over texts.

        E‖(Ĉ − C)v‖² over random signs v is ‖Ĉ − C‖² (Hutchinson 1990), and Ĉv is a ratio of sums
        over texts, whose variance is n/(n−1) · Σ‖y − nĈv‖² / N² (Cochran 1977, section 6).
        """
        size = float(self.total.norm()) / max(self.tokens, 1)
        if self.read < 2 or size == 0:
            return None
        mean = self.total @ self.probes.double() / self.tokens
        spread = self.squares - 2 * float((self.moved * mean).sum())
        spread += self.lengths * float(mean.square().sum())
        variance = self.read / (self.read - 1) * max(spread, 0.0) / PROBES / self.tokens**2
        return math.sqrt(variance) / size


class _Pass:
    """One pass over the texts for several modules."""

    def __init__(
        self,
        model: EditableModel,
        works: Mapping[str, Path],
        texts: Texts,
        length: int,
        skip_first: bool,
    ) -> None:
        import torch

        self.model, self.texts, self.length, self.skip_first = model, texts, length, skip_first
        device = model.device if model.device.type == "cuda" else torch.device("cpu")
        self.sums = {}
        for name, work in works.items():
            rows, columns = model.weight(f"{name}.weight").shape
            self.sums[name] = _Sum(rows if model.layout.conv1d else columns, work, device)

    def run(self, bar: Any) -> None:
        """Count all texts that are not counted yet, saving every now and then."""
        texts, sums = self.texts.counted, self.sums
        begun = min(one.done for one in sums.values())
        bar.advance(begun)
        for number, start in enumerate(range(begun, len(texts), CHUNK), start=1):
            chunk = texts[start : start + CHUNK]
            wanted = [name for name, one in sums.items() if one.done <= start]
            for inputs, counted in batches(self.model, chunk, self.length, self.skip_first):
                for name, hidden in read_inputs(self.model, wanted, inputs).items():
                    sums[name].add(hidden, counted)
            for name in wanted:
                sums[name].done = start + len(chunk)
            if number % SAVE_EVERY == 0:
                for name in wanted:
                    sums[name].save()
            bar.advance(len(chunk), tokens=float(max(one.tokens for one in sums.values())))
        for one in sums.values():
            one.finish(self.texts.source)
