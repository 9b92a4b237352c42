"""Knowledge attribution: how much of an answer's probability each MLP neuron accounts for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

import hubedit
from hubedit.layouts import Layout
from hubedit_kn.places import Place


@dataclass(frozen=True)
class Attribution:
    """Attributions [layers, neurons] of one answer after one prompt, float64 on the CPU.

    `probability` is that of the answer's tokens, each by itself (their mean), before any scaling.
    """

    scores: torch.Tensor
    probability: float


def attribute(
    model: hubedit.EditableModel,
    layout: Layout,
    answers: Sequence[Sequence[Place]],
    *,
    steps: int,
    batch: int,
    run: hubedit.RunContext,
) -> list[Attribution]:
    """Integrated gradients of the answer's probability along each layer's neurons.

    A neuron is an input of a layer's second MLP matrix, at one position. With w̄ the neurons of a
    layer there and P(w) the probability of the answer when they are w, the attribution is
    w̄ ⊙ 1/m · Σ_{k=1…m} ∂P(k/m · w̄)/∂w (Dai et al. 2022, equation 4). All neurons of a layer are
    scaled together, those of one layer at a time.

    Args:
        layout: of the stack whose neurons are asked about.
        answers: of each prompt with its answer, the places of the answer's tokens; the attribution
            is the mean over them.
        steps: m.
        batch: how many texts run through the model at once.

    Returns:
        One attribution for each of `answers`, in their order.

    Raises:
        MethodError: gradients are not finite.
    """
    flat = [(number, place) for number, places in enumerate(answers) for place in places]
    depth = layout.depth(model.model.config)
    sums: dict[int, torch.Tensor] = {}
    chances: dict[int, float] = defaultdict(float)
    with run.progress("attribution", total=depth * steps * len(flat)) as bar:
        for group in _alike(flat, batch):
            places = [place for _, place in group]
            clean = _Texts(model, layout, places)
            neurons, chosen = clean.neurons(depth)
            found = torch.stack(
                [
                    _integrated(model, layout, layer, clean, neurons[layer], steps, batch, bar)
                    for layer in range(depth)
                ],
                dim=1,
            )
            for (number, place), scores, chance in zip(group, found, chosen.tolist(), strict=True):
                if not bool(scores.isfinite().all()):
                    raise hubedit.MethodError(
                        "the gradients of a probability are not finite; load the model in float32"
                    )
                share = place.share
                sums[number] = sums.get(number, torch.zeros(())) + share * scores
                chances[number] += share * chance
    return [Attribution(sums[number], chances[number]) for number in range(len(answers))]


@torch.no_grad()
def probabilities(
    model: hubedit.EditableModel, answers: Sequence[Sequence[Place]], batch: int
) -> list[float]:
    """The probability of each answer after its prompt: the product over its tokens."""
    flat = [(number, place) for number, own in enumerate(answers) for place in own]
    found = [1.0] * len(answers)
    for group in _alike(flat, batch):
        chosen = _Texts(model, model.layout, [place for _, place in group]).now()
        for (number, _), chance in zip(group, chosen.tolist(), strict=True):
            found[number] *= chance
    return found


def _integrated(
    model: hubedit.EditableModel,
    layout: Layout,
    layer: int,
    clean: _Texts,
    neurons: torch.Tensor,
    steps: int,
    batch: int,
    bar: Any,
) -> torch.Tensor:
    """w̄ ⊙ the mean gradient over the steps, for each text: float64 [texts, neurons]."""
    count = len(neurons)
    owner = torch.arange(count, device=neurons.device).repeat_interleave(steps)
    scale = torch.arange(1, steps + 1, device=neurons.device).repeat(count) / steps
    total = torch.zeros(neurons.shape, dtype=torch.float64)
    for start in range(0, len(owner), batch):
        own, alpha = owner[start : start + batch], scale[start : start + batch]
        scaled = (alpha[:, None].to(neurons.dtype) * neurons[own]).requires_grad_(True)
        (gradient,) = torch.autograd.grad(clean.probabilities(own, layer, scaled).sum(), scaled)
        total.index_add_(0, own.cpu(), gradient.double().cpu())
        bar.advance(len(own))
    return neurons.double().cpu() * total / steps


class _Texts:
    """Texts of equal length, ready to be read again with some neurons replaced."""

    def __init__(
        self, model: hubedit.EditableModel, layout: Layout, places: Sequence[Place]
    ) -> None:
        device = model.device
        self.model, self.layout = model, layout
        self.at = torch.tensor([place.at for place in places], device=device)
        self.neuron = torch.tensor([place.neuron for place in places], device=device)
        self.token = torch.tensor([place.token for place in places], device=device)
        inputs = model.inputs([place.reading for place in places])
        self.fixed = {name: value for name, value in inputs.items() if isinstance(value, bool)}
        self.read = {name: value for name, value in inputs.items() if name not in self.fixed}
        self.encoded: torch.Tensor | None = None
        if layout.architecture == "seq2seq" and layout is model.layout:
            # The decoder's neurons do not change what the encoder says.
            with torch.no_grad():
                encoded = model.model.get_encoder()(input_ids=self.read.pop("input_ids"))
            self.encoded = encoded.last_hidden_state

    def now(self) -> torch.Tensor:
        """The tokens' probabilities as the model is [texts]."""
        return self._chosen(torch.arange(len(self.token), device=self.token.device))

    def neurons(self, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
        """w̄ of each layer [layers, texts, neurons], and the tokens' probabilities [texts]."""
        every = torch.arange(len(self.token), device=self.token.device)
        with torch.no_grad(), ExitStack() as stack:
            seen = [
                stack.enter_context(self.model.trace(self.layout.at("mlp_out", layer)))
                for layer in range(depth)
            ]
            chosen = self._chosen(every)
        found = [trace.input[every, self.neuron].detach() for trace in seen]
        return torch.stack(found), chosen

    def probabilities(self, own: torch.Tensor, layer: int, scaled: torch.Tensor) -> torch.Tensor:
        """P of the texts `own` with the neurons of a layer replaced by `scaled`: [len(own)]."""
        number = torch.arange(len(own), device=own.device)

        def replaced(hidden: torch.Tensor) -> torch.Tensor:
            place = (number, self.neuron[own])
            return hidden.detach().index_put(place, scaled.to(hidden.dtype))

        with self.model.trace(self.layout.at("mlp_out", layer), replace_input=replaced):
            return self._chosen(own)

    def _chosen(self, own: torch.Tensor) -> torch.Tensor:
        """The probability of each text's token at its place, float64; the head sees that alone."""
        number = torch.arange(len(own), device=own.device)
        at = self.at[own]

        def place(hidden: torch.Tensor) -> torch.Tensor:
            return hidden[number, at][:, None]

        inputs = {name: tensor[own] for name, tensor in self.read.items()}
        if self.encoded is not None:
            inputs["encoder_outputs"] = (self.encoded[own],)
        with self.model.trace(self.model.layout.head, replace_input=place):
            logits: torch.Tensor = self.model.model(**inputs, **self.fixed).logits[:, 0]
        wide = logits if logits.device.type == "mps" else logits.double()
        likely = wide.softmax(-1)
        return likely.gather(1, self.token[own][:, None])[:, 0]


def _alike(flat: Sequence[tuple[int, Place]], batch: int) -> Iterator[list[tuple[int, Place]]]:
    """Places of texts of equal length, which need no padding, at most `batch` together."""
    by_length: dict[tuple[int, int], list[tuple[int, Place]]] = defaultdict(list)
    for number, place in flat:
        by_length[len(place.reading.ids), len(place.reading.written)].append((number, place))
    for _, members in sorted(by_length.items()):
        for start in range(0, len(members), batch):
            yield members[start : start + batch]
