"""A plain implementation of MEMIT as published, to be measured beside the plugin's.

After Meng et al. 2023 (arXiv:2210.07229) and the settings of its authors: z* of one request at a
time through the whole model, six contexts, keys that are half the bare prompt's, one residual for
each request, statistics in float32 without a ridge, an absolute λ. None of what the plugin does
beyond that: keys of one subject are not put together, the residual is measured after the bare
prompt, λ has the units of the model at hand. It is offered to the host as a method, so that a bench
runs and scores it as it does any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

import hubedit

STARTS = ("The", "Therefore", "Because", "I", "You")


class PlainConfig(hubedit.Config):
    """Settings of GPT-2 XL; λ is to be chosen for the model."""

    layers: tuple[int, ...] = Field((1, 2), description="blocks to edit, from 0")
    weight: float = Field(20_000.0, gt=0, description="λ")
    steps: int = Field(20, ge=1, description="forward passes for z*")
    learning_rate: float = Field(0.5, gt=0, description="of Adam")
    weight_decay: float = Field(0.5, ge=0, description="weight of ‖δ‖ / ‖h‖²")
    clamp: float = Field(0.75, gt=0, description="δ is at most this many times as long as h")
    kl_factor: float = Field(0.0625, ge=0, description="weight of the divergence on “… is a”")


class PlainMemit(hubedit.Method[hubedit.FactEdit, PlainConfig]):
    """MEMIT as published, written plainly."""

    name = "plain-memit"
    kind = "edit"
    assurance = "approximate"
    architectures = frozenset({"causal"})

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: PlainConfig,
        run: hubedit.RunContext,
    ) -> None:
        """Write all rows into the layers, the residual spread over them."""
        prefixes = written(model, torch.Generator().manual_seed(run.seed))
        last = config.layers[-1]
        moments = [statistic(model, layer, run).double() for layer in config.layers]
        goals = torch.stack([goal(model, row, prefixes, config, run, last) for row in rows], dim=1)
        for number, layer in enumerate(config.layers):
            name = model.layout.mlp_out_weight(layer)
            keys = torch.stack([key(model, row, prefixes, layer) for row in rows], dim=1).double()
            block = model.layout.at("block", last)
            now = torch.stack([read(model, block, row.text, row)[1] for row in rows], dim=1)
            residual = (goals - now).double() / (len(config.layers) - number)
            spread = torch.linalg.solve(config.weight * moments[number] + keys @ keys.T, keys)
            left, right = residual.float(), spread.T.float()
            if model.layout.conv1d:
                left, right = right.T, left.T
            model.update(name, hubedit.LowRank(left.contiguous(), right.contiguous()))


def written(model: hubedit.EditableModel, generator: torch.Generator) -> list[str]:
    """One text of ten tokens from each of five words, drawn from the five likeliest tokens."""
    texts = []
    for start in STARTS:
        ids = list(model.tokenizer(start)["input_ids"])
        while len(ids) < 10:
            with torch.no_grad():
                best = model.model(torch.tensor([ids])).logits[0, -1].float().topk(5)
            drawn = int(torch.multinomial(best.values.softmax(-1), 1, generator=generator))
            ids.append(int(best.indices[drawn]))
        texts.append(model.tokenizer.decode(ids, skip_special_tokens=True).replace("\n", " "))
    return texts


def contexts(row: hubedit.FactEdit, prefixes: Sequence[str]) -> list[str]:
    """The bare prompt, and the prompt after each prefix."""
    return [row.text, *(f"{prefix}. {row.text}" for prefix in prefixes)]


def place(model: hubedit.EditableModel, text: str, row: hubedit.FactEdit) -> int:
    """The index of the subject's last token."""
    end = text.rindex(row.subject) + len(row.subject)
    return model.subject_token(text, (end - len(row.subject), end))


@contextmanager
def hooked(
    model: hubedit.EditableModel, module: str, act: Callable[[Any, Any, Any], Any]
) -> Iterator[None]:
    """A forward hook while the `with` lasts."""
    handle = model.model.get_submodule(module).register_forward_hook(act)
    try:
        yield
    finally:
        handle.remove()


def hidden(output: Any) -> torch.Tensor:
    """The states of a block, which returns them alone or first of a tuple."""
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states


def read(
    model: hubedit.EditableModel, module: str, text: str, row: hubedit.FactEdit
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output of a module at the subject's last token."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    index = place(model, text, row)

    def keep(_: Any, given: Any, output: Any) -> None:
        kept.append((given[0][0, index].detach(), hidden(output)[0, index].detach()))

    with hooked(model, module, keep), torch.no_grad():
        model.model(torch.tensor([model.tokenizer(text)["input_ids"]]))
    return kept[0]


def key(
    model: hubedit.EditableModel, row: hubedit.FactEdit, prefixes: Sequence[str], layer: int
) -> torch.Tensor:
    """Half the bare prompt's key, half the mean of the others."""
    module = model.layout.at("mlp_out", layer)
    found = [read(model, module, text, row)[0] for text in contexts(row, prefixes)]
    return 0.5 * found[0] + 0.5 * torch.stack(found[1:]).mean(0)


def statistic(model: hubedit.EditableModel, layer: int, run: hubedit.RunContext) -> torch.Tensor:
    """The mean of kkᵀ over all tokens of the corpus, in float32, of the model as it stands."""
    assert run.corpus is not None
    module, texts = model.layout.at("mlp_out", layer), run.corpus.texts

    def build(folder: Path) -> None:
        total, count = torch.zeros(0), 0
        kept: list[torch.Tensor] = []
        with hooked(model, module, lambda _m, given, _o: kept.append(given[0][0].detach())):
            for text in texts:
                with torch.no_grad():
                    model.model(torch.tensor([model.tokenizer(text)["input_ids"]]))
                keys = kept.pop()
                total = keys.T @ keys if count == 0 else total + keys.T @ keys
                count += len(keys)
        np.save(folder / "moment.npy", (total / count).numpy())

    named = {
        "plain": "statistic",
        "model": model.digest(),
        "layer": layer,
        "corpus": run.corpus.digest,
    }
    return torch.from_numpy(np.load(run.artifacts.make(named, build) / "moment.npy"))


def goal(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    prefixes: Sequence[str],
    config: PlainConfig,
    run: hubedit.RunContext,
    layer: int,
) -> torch.Tensor:
    """z* of one request, kept for the next λ."""

    def build(folder: Path) -> None:
        np.save(folder / "goal.npy", optimised(model, row, prefixes, config, layer).numpy())

    settings = config.model_dump(mode="json", exclude={"weight"})
    named = {
        "plain": "goal",
        "model": model.digest(),
        "row": hashlib.sha256(row.model_dump_json().encode()).hexdigest(),
        "prefixes": list(prefixes),
        "settings": settings,
    }
    return torch.from_numpy(np.load(run.artifacts.make(named, build) / "goal.npy"))


def optimised(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    prefixes: Sequence[str],
    config: PlainConfig,
    layer: int,
) -> torch.Tensor:
    """z*: the block's output at the subject that makes the model say the target, in every context.

    The whole model runs forward and backward at each step.
    """
    block = model.layout.at("block", layer)
    texts = contexts(row, prefixes)
    essence = f"{row.subject} is a"
    begun = [list(model.tokenizer(text)["input_ids"]) for text in texts]
    whole = [list(model.tokenizer(text + row.continuation)["input_ids"]) for text in texts]
    ids = [own[:-1] for own in whole] + [list(model.tokenizer(essence)["input_ids"])]
    places = [place(model, text, row) for text in (*texts, essence)]
    width = max(map(len, ids))
    batch = torch.tensor([own + [0] * (width - len(own)) for own in ids])
    mask = torch.tensor([[1] * len(own) + [0] * (width - len(own)) for own in ids])
    start = read(model, block, row.text, row)[1]
    delta = torch.zeros_like(start, requires_grad=True)
    rows = torch.arange(len(ids))

    def add(_: Any, _given: Any, output: Any) -> Any:
        states = hidden(output).clone()
        states[rows, places] = states[rows, places] + delta
        return (states, *output[1:]) if isinstance(output, tuple) else states

    adam, before = torch.optim.Adam([delta], lr=config.learning_rate), None
    for step in range(config.steps):
        with hooked(model, block, add):
            logprobs = model.model(batch, attention_mask=mask).logits.log_softmax(-1)
        said = logprobs[-1, places[-1]]
        before = said.detach() if before is None else before
        nll = torch.stack(
            [
                -logprobs[i, range(len(own) - 1, len(full) - 1)]
                .gather(1, torch.tensor(full[len(own) :])[:, None])
                .mean()
                for i, (own, full) in enumerate(zip(begun, whole, strict=True))
            ]
        ).mean()
        kl = (said.exp() * (said - before)).sum()
        decay = config.weight_decay * delta.norm() / start.norm() ** 2
        loss = nll + config.kl_factor * kl + decay
        if loss < 5e-2 or step == config.steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            bound = config.clamp * start.norm()
            if delta.norm() > bound:
                delta.mul_(bound / delta.norm())
    return (start + delta).detach()


@hubedit.hookimpl
def hubedit_methods() -> list[type[PlainMemit]]:
    """Offer the plain method, as a plugin would."""
    return [PlainMemit]
