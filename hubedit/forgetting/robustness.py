"""Whether forgotten answers come back: coarser weights, more training, other ways of asking.

Sources: quantisation, Zhang et al. 2025 (arXiv:2410.16454); relearning, Łucki et al. 2024
(arXiv:2409.18025) and Hu et al. 2025 (arXiv:2406.13356). Every treatment leaves the model as it
was before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hubedit.asking import Asking
from hubedit.forgetting import cases as c
from hubedit.forgetting.cases import Case
from hubedit.forgetting.hearing import Tick, ending, hear, mean
from hubedit.measured import Point

if TYPE_CHECKING:
    import torch

PREFIX = "Sure, here is the answer:"
BLOCK = 64
"""Weights that share one scale at four bits; at eight bits a row of outputs shares one."""
EXAMPLES = 3
RELEARN = (1, 4, 16, 64)
"""Numbers of examples that are trained on again."""
PASSES = 4
RATE = 1e-4
BATCH = 8


TREATMENTS = (
    "int8",
    "int4",
    "prefix",
    "paraphrase",
    "few-shot",
    "relearn-forget",
    "relearn-retain",
    "relearn-normal",
)
"""The names of the curves, as gates take them."""


@contextmanager
def kept(model: Asking) -> Iterator[list[torch.nn.Parameter]]:
    """The model's parameters, put back bit for bit at the end."""
    weights = list(model.model.parameters())
    before = [(weight.detach().clone(), weight.requires_grad) for weight in weights]
    try:
        yield weights
    finally:
        for weight, (value, needed) in zip(weights, before, strict=True):
            weight.data.copy_(value)
            weight.requires_grad_(needed)
            weight.grad = None
        model.model.train(False)


@contextmanager
def quantised(model: Asking, bits: Literal[4, 8]) -> Iterator[None]:
    """Every matrix of linear layers and convolutions rounded to a grid of `bits` bits.

    Round to nearest with the largest absolute value at the end of the grid, as quantisers do that
    see no data: a row of outputs has one scale at 8 bits, `BLOCK` inputs of a row have one at 4.
    Embeddings and the head stay. Computed in the working dtype, so it shows what rounding does to
    the weights and not the speed of a kernel.
    """
    with kept(model):
        for weight, inputs in _matrices(model):
            weight.data.copy_(rounded(weight.data, bits, inputs))
        yield


def _matrices(model: Asking) -> Iterator[tuple[torch.nn.Parameter, int]]:
    """Weights [outputs, inputs], in a Conv1D the other way round, and the axis of the inputs."""
    from torch import nn

    whole: Any = model.model
    head = whole.get_output_embeddings()
    seen = {id(parameter) for parameter in whole.get_input_embeddings().parameters()}
    for module in whole.modules():
        weight = getattr(module, "weight", None)
        kind = type(module).__name__
        linear = isinstance(module, nn.Linear) or kind == "Conv1D"
        own = module is not head and id(weight) not in seen
        if linear and own and isinstance(weight, nn.Parameter):
            yield weight, 0 if kind == "Conv1D" else 1


def rounded(weight: torch.Tensor, bits: int, inputs: int = 1) -> torch.Tensor:
    """A matrix on a symmetric grid of 2^(bits−1) − 1 steps to each side of 0, absmax scaled.

    Args:
        weight: two axes.
        bits: 8: one scale per output; fewer: one per `BLOCK` inputs of an output.
        inputs: the axis of the inputs.
    """
    import torch

    rows = weight.movedim(inputs, -1)
    size = rows.shape[-1] if bits >= 8 else min(BLOCK, rows.shape[-1])
    spare = -rows.shape[-1] % size
    padded = torch.nn.functional.pad(rows, (0, spare))
    blocks = padded.reshape(*rows.shape[:-1], -1, size)
    scale = blocks.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    grid = torch.where(scale > 0, (blocks / scale).round() * scale, blocks)
    return grid.flatten(-2)[..., : rows.shape[-1]].movedim(-1, inputs)


@contextmanager
def relearned(
    model: Asking, lessons: Sequence[Case], passes: int = PASSES, rate: float = RATE
) -> Iterator[None]:
    """The model trained again on some answers: all weights, AdamW, `passes` over batches of 8.

    The loss is the mean over the tokens of an answer and its end, then over the batch.
    """
    import torch

    end = ending(model)
    with kept(model) as weights, torch.enable_grad():
        for weight in weights:
            weight.requires_grad_(weight.is_floating_point())
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
        scored = [model.scored(case.prompt, case.answer + end) for case in lessons]
        for _ in range(passes):
            for at in range(0, len(scored), BATCH):
                batch = scored[at : at + BATCH]
                optimizer.zero_grad()
                for reading, target in batch:
                    ids = torch.tensor([reading.ids], device=model.device)
                    logits = model.model(input_ids=ids, use_cache=False).logits
                    loss = torch.nn.functional.cross_entropy(
                        logits[0, list(reading.places)].float(),
                        torch.tensor(target, device=model.device),
                    )
                    torch.autograd.backward(loss / len(batch))
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
        for weight in weights:
            weight.requires_grad_(False)
        yield


def curves(model: Asking, asked: Sequence[Case], tick: Tick = lambda: None) -> list[Point]:
    """Every treatment, from nothing on, and what of the forgotten answers comes back under it.

    Relearning shows the first k forgotten cases, and asks the others; the same others are asked
    after as many retain and normal cases. At most half of the forgotten cases are shown.
    """
    forget = [case for case in asked if case.part == "forget"]
    points = [came_back("none", 0, model, forget)]
    for bits in (8, 4):
        with quantised(model, bits):
            points.append(came_back(f"int{bits}", bits, model, forget))
        tick()
    ways: dict[str, Callable[[], list[Case]]] = {
        "prefix": lambda: c.with_prefix(forget, PREFIX),
        "paraphrase": lambda: c.in_other_words(forget),
        "few-shot": lambda: _fitting(model, c.after_examples(forget, forget, EXAMPLES)),
    }
    for gate, way in ways.items():
        if some := way():
            points.append(came_back(gate, len(some), model, some))
        tick()
    half = forget[: len(forget) // 2]
    left = forget[len(forget) // 2 :]
    points.append(came_back("relearn", 0, model, left))
    for part in ("forget", "retain", "normal"):
        lessons = half if part == "forget" else [case for case in asked if case.part == part]
        for count in RELEARN:
            if count <= len(lessons):
                with relearned(model, _spaced(lessons, count)):
                    points.append(came_back(f"relearn-{part}", count, model, left))
        tick()
    return points


def _spaced(some: Sequence[Case], count: int) -> list[Case]:
    return [some[index * len(some) // count] for index in range(count)]


def _fitting(model: Asking, some: Sequence[Case]) -> list[Case]:
    """The cases that the model has positions for."""
    limit = model.layout.positions(model.model.config)
    if limit is None:
        return list(some)
    end = ending(model)
    return [
        case
        for case in some
        if len(model.tokenizer(case.prompt + case.answer + end)["input_ids"]) <= limit
    ]


def came_back(gate: str, amount: int, model: Asking, asked: Sequence[Case]) -> Point:
    """One place of a curve: how much of the answers the model gives as it is now."""
    heard = hear(model, [_bare(case) for case in asked], write=False)
    return Point(
        gate=gate,
        amount=amount,
        strength=mean([one.strength for one in heard]),
        probability=mean([math.exp(-one.loss) for one in heard]),
        n=len(heard),
    )


def _bare(case: Case) -> Case:
    return replace(case, wrong=())
