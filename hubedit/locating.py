"""Causal tracing: which states of which layers carry an answer from the subject to the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.artifacts import canonical_json
from hubedit.effects import MODULES, Module, averaged, role_of
from hubedit.errors import RequestError
from hubedit.located import FILE, KIND
from hubedit.method import RunContext
from hubedit.moments import tokenizer_digest

if TYPE_CHECKING:
    import torch

    from hubedit.models import LoadedModel
    from hubedit.reading import Reading

TOKENS_AT_ONCE = 4096
"""Tokens in one forward pass, at most (at least one state's runs)."""


@dataclass(frozen=True)
class Fact:
    """A prompt, the characters [start, end) of its subject, and its true answer if one is given."""

    prompt: str
    subject: tuple[int, int]
    answer: str | None = None


@dataclass(frozen=True)
class Tracing:
    """How it is traced: the published numbers are 10 samples, 3 standard deviations, 10 of 48."""

    samples: int = 10
    """Corrupted runs, each with noise of its own."""
    noise: float = 3.0
    """Standard deviation of the noise, in units of that of the subjects' embeddings."""
    window: int | None = None
    """Layers whose attention or MLP is restored together; None: 10 of 48, at least one."""
    seed: int = 0


def trace_facts(
    model: LoadedModel, facts: Sequence[Fact], how: Tracing, run: RunContext
) -> tuple[Path, dict[str, Any]]:
    """Trace facts (Meng et al. 2022, section 2) and keep the result in the store.

    The embeddings of the subject's tokens get noise, which makes the answer unlikely; then one
    state (or the outputs of a window of attentions or MLPs) of one token is put back as it was.
    The effect is how much of the answer's probability returns, averaged over noise and prompts. The
    answer is the model's own likeliest first token; a prompt whose true answer begins otherwise is
    left out. Noise is seeded by prompt and alike for all states. A killed run goes on after the
    last prompt that was finished.

    Returns:
        The artifact's directory, and what it says.

    Raises:
        RequestError: the model answers none of the prompts.
    """
    depth = _reader(model).depth(model.model.config)
    window = how.window or max(round(depth * 10 / 48), 1)
    asked = [[fact.prompt, list(fact.subject), fact.answer] for fact in facts]
    key = {
        "kind": KIND,
        "format": 1,
        "model": model.digest(),
        "dtype": str(model.model.dtype),
        "tokenizer": tokenizer_digest(model),
        "prompts": sha256(canonical_json(asked)).hexdigest(),
        "samples": how.samples,
        "noise": how.noise,
        "window": window,
        "seed": how.seed,
    }

    def build(work: Path) -> None:
        deviation = how.noise * embedding_deviation(model, facts)
        parts = []
        with run.progress("tracing", total=len(facts)) as bar:
            for number, fact in enumerate(facts):
                path = work / f"{number:06d}.json"
                if not path.exists():
                    found = trace_one(model, fact, deviation, window, how, number)
                    whole = path.with_suffix(".tmp")
                    whole.write_text(json.dumps(found), encoding="utf-8")
                    os.replace(whole, path)
                parts.append(json.loads(path.read_text(encoding="utf-8")))
                bar.advance()
        known = [part for part in parts if part is not None]
        if not known:
            raise RequestError(
                f"the model gives the true answer to none of the {len(facts)} prompts; give "
                "prompts that it answers"
            )
        found = {"noise": deviation, "window": window, "left_out": len(parts) - len(known)}
        found |= averaged(known, depth)
        _write(work / "prompts.json", known)
        _write(work / FILE, found)
        for number in range(len(facts)):
            (work / f"{number:06d}.json").unlink()

    made = run.artifacts.make(key, build)
    return made, json.loads((made / FILE).read_text(encoding="utf-8"))


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _reader(model: LoadedModel) -> Any:
    """The layout of the stack that reads prompts."""
    return model.layout.encoder or model.layout


def _embeddings(model: LoadedModel) -> str:
    """The name of the module that embeds the tokens of a prompt."""
    reader: Any = model.model if model.layout.encoder is None else model.model.get_encoder()
    table = reader.get_input_embeddings()
    named: Any = model.model.named_modules()
    return next(str(name) for name, module in named if module is table)


def embedding_deviation(model: LoadedModel, facts: Sequence[Fact]) -> float:
    """The standard deviation of all elements of the embeddings of the subjects' tokens."""
    import torch

    table = model.model.get_submodule(_embeddings(model))
    seen = []
    for fact in facts:
        reading, first, last = _read(model, fact)
        ids = torch.tensor(reading.ids[first : last + 1], device=model.device)
        with torch.no_grad():
            seen.append(table(ids).float())
    return float(torch.cat(seen).std())


def _read(model: LoadedModel, fact: Fact) -> tuple[Reading, int, int]:
    """What to read for the answer, and the indices of the subject's first and last token."""
    start, _ = fact.subject
    begun = model.next_reading(fact.prompt, (start, start + 1))
    reading = model.next_reading(fact.prompt, fact.subject)
    assert begun.subject is not None
    assert reading.subject is not None
    return reading, begun.subject, reading.subject


def trace_one(
    model: LoadedModel, fact: Fact, deviation: float, window: int, how: Tracing, number: int
) -> dict[str, Any] | None:
    """Trace one prompt; None if its true answer is not what the model says.

    Args:
        deviation: standard deviation of the noise.
        window: layers whose attention or MLP is restored together.
        number: of the prompt; with the seed it decides the noise.

    Returns:
        The tokens with their roles, the answer, its probability when `clean` and when `corrupted`,
        and when restored: `block`, `attention` and `mlp` [tokens][layers]; tokens that the noise
        cannot reach hold `corrupted`.
    """
    import torch

    reading, first, last = _read(model, fact)
    layout, length = _reader(model), len(reading.ids)
    depth = layout.depth(model.model.config)
    running = _Running(model, reading)
    with torch.no_grad():
        likely, clean = running.clean(depth)
    answer = int(likely.argmax())
    if fact.answer is not None:
        _, wanted = model.scored(fact.prompt, fact.answer)
        if wanted[0] != answer:
            return None
    generator = torch.Generator().manual_seed(how.seed * 1_000_003 + number)
    width = clean["block", 0].shape[-1]
    noise = torch.randn(how.samples, last + 1 - first, width, generator=generator) * deviation
    running.noise = (first, noise.to(model.device))
    with torch.no_grad():
        corrupted = float(running.restored("block", [None], {}, answer)[0])
        # what stands before the subject cannot hear of it in a model that reads forwards
        begin = first if model.layout.architecture == "causal" else 0
        found: dict[str, list[list[float]]] = {}
        for module in MODULES:
            reach = 1 if module == "block" else window
            cells = [
                (token, _window(layer, reach, depth))
                for token in range(begin, length)
                for layer in range(depth)
            ]
            states = {layer: clean[module, layer] for layer in range(depth)}
            size = max(TOKENS_AT_ONCE // (length * how.samples), 1)
            values: list[float] = [corrupted] * (begin * depth)
            for start in range(0, len(cells), size):
                part = cells[start : start + size]
                values += running.restored(module, part, states, answer).tolist()
            found[module] = [values[at * depth : (at + 1) * depth] for at in range(length)]
    place = reading.places[0] if model.layout.architecture != "seq2seq" else None
    return {
        "tokens": [str(model.tokenizer.decode([token])) for token in reading.ids],
        "roles": [role_of(token, first, last, place) for token in range(length)],
        "answer": str(model.tokenizer.decode([answer])),
        "clean": float(likely[answer]),
        "corrupted": corrupted,
        **found,
    }


def _window(layer: int, reach: int, depth: int) -> range:
    """The layers around one, as published: [l − w/2, l + w/2), cut at both ends."""
    below = reach // 2
    return range(max(layer - below, 0), min(layer - below + reach, depth))


Cell = tuple[int, Sequence[int]] | None
"""A token and the layers that are restored there; None restores nothing."""


class _Running:
    """Forward passes over one prompt: clean, corrupted, and with states put back."""

    def __init__(self, model: LoadedModel, reading: Reading) -> None:
        self.model, self.reading = model, reading
        self.layout, self.embeddings = _reader(model), _embeddings(model)
        self.noise: tuple[int, torch.Tensor] | None = None

    def clean(self, depth: int) -> tuple[torch.Tensor, dict[tuple[Module, int], torch.Tensor]]:
        """Probabilities [vocabulary] of the answer's first token, and all states [tokens, d]."""
        with ExitStack() as traces:
            seen = {
                (module, layer): traces.enter_context(
                    self.model.trace(self.layout.at(module, layer))
                )
                for module in MODULES
                for layer in range(depth)
            }
            likely = self._forward(1)[0]
        states = {}
        for place, trace in seen.items():
            assert trace.output is not None
            states[place] = trace.output[0]
        return likely, states

    def restored(
        self,
        module: Module,
        cells: Sequence[Cell],
        states: Mapping[int, torch.Tensor],
        answer: int,
    ) -> torch.Tensor:
        """Probability [cells] of the answer, averaged over the noise.

        Args:
            module: what is put back.
            cells: where.
            states: the clean outputs [tokens, d] of that module, by layer.
            answer: a token id.
        """
        import torch

        assert self.noise is not None
        first, noise = self.noise
        samples, length = noise.shape[0], len(self.reading.ids)
        rows = len(cells) * samples
        added = noise.repeat(len(cells), 1, 1)
        once = iter((True,))

        def corrupt(embedded: torch.Tensor) -> torch.Tensor:
            if not next(once, False):  # the decoder of some models shares the table
                return embedded
            changed = embedded.clone()
            changed[:, first : first + noise.shape[1]] += added.to(embedded.dtype)
            return changed

        with ExitStack() as traces:
            traces.enter_context(self.model.trace(self.embeddings, replace_output=corrupt))
            for layer, state in states.items():
                back = torch.zeros(len(cells), length, dtype=torch.bool, device=state.device)
                for number, cell in enumerate(cells):
                    if cell is not None and layer in cell[1]:
                        back[number, cell[0]] = True
                if back.any():
                    put = _putting(back.repeat_interleave(samples, 0)[..., None], state)
                    name = self.layout.at(module, layer)
                    traces.enter_context(self.model.trace(name, replace_output=put))
            likely = self._forward(rows)[:, answer]
        return likely.double().reshape(len(cells), samples).mean(1)

    def _forward(self, rows: int) -> torch.Tensor:
        """Probabilities [rows, vocabulary] of the answer's first token."""
        import torch

        model, reading = self.model, self.reading
        given: dict[str, Any] = {
            "input_ids": torch.tensor([list(reading.ids)] * rows, device=model.device)
        }
        place = reading.places[0]
        if model.layout.architecture == "causal":
            given |= {"use_cache": False, "logits_to_keep": 1}
            place = -1
        elif model.layout.architecture == "seq2seq":
            given["decoder_input_ids"] = torch.tensor(
                [list(reading.written)] * rows, device=model.device
            )
        logits: torch.Tensor = model.model(**given).logits[:, place]
        return logits.float().softmax(-1)


def _putting(back: torch.Tensor, state: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What puts a clean state [tokens, d] back where `back` [rows, tokens, 1] says so."""

    def put(output: torch.Tensor) -> torch.Tensor:
        return state.to(output.dtype).where(back, output)

    return put
