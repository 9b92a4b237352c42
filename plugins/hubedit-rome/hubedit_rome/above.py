"""Forward passes over what a change at the subject can reach: later tokens, higher blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache

import hubedit
from hubedit_rome.batches import Batch

CLOSE = 256
"""How far logits may lie from those of the whole pass, in last places of the largest."""


@dataclass(frozen=True)
class Tails(Batch):
    """The tokens of some readings from the subject's last on, with all before and below kept.

    In a model that reads forwards, what is added at the subject's last token changes neither
    earlier tokens nor lower blocks. Their keys and values, and the states that enter the first
    block above, are those of one pass before the change.

    `begins` int64 [n] is where each tail starts in its reading. `past` holds keys and values
    [n, heads, prefix, d] of every block; those of blocks that are not run stand for their length
    alone. `state` [n, tail, width] is what the last of the `idle` blocks put out.
    """

    begins: torch.Tensor
    past: Sequence[tuple[torch.Tensor, torch.Tensor]]
    state: torch.Tensor | None
    idle: Sequence[str]
    tuples: bool

    def only(self, wanted: torch.Tensor) -> Batch:
        """Some of the readings, without the padding that only the others needed.

        Args:
            wanted: bool [n].
        """
        given = {name: tensor[wanted] for name, tensor in self.inputs.items()}
        return replace(
            self,
            inputs=given,
            lookup=self.lookup[wanted],
            begins=self.begins[wanted],
            past=[(keys[wanted], values[wanted]) for keys, values in self.past],
            state=None if self.state is None else self.state[wanted],
        )

    def logits(
        self, model: hubedit.EditableModel, text: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """Logits [places, vocabulary] in float32 at places of the whole readings.

        Args:
            text: int64 [places], the reading of each place, and `at` alike its position there.
        """
        past = None
        if self.past:
            past = DynamicCache()
            for number, (keys, values) in enumerate(self.past):
                past.update(keys, values, number)
        call = replace(self, inputs={**self.inputs, "past_key_values": past})
        with self._idling(model):
            return Batch.logits(
                Batch({**call.inputs, "use_cache": past is not None}, self.lookup),
                model,
                text,
                at - self.begins[text],
            )

    @contextmanager
    def _idling(self, model: hubedit.EditableModel) -> Iterator[None]:
        """Let the blocks below return what they returned before, without computing it."""
        blocks = [model.model.get_submodule(name) for name in self.idle]
        for block in blocks:
            last = block is blocks[-1]
            # an attribute of the instance stands before the method of its class
            vars(block)["forward"] = _returning(self.state if last else None, self.tuples)
        try:
            yield
        finally:
            for block in blocks:
                del vars(block)["forward"]


def _returning(state: torch.Tensor | None, tuples: bool) -> Callable[..., Any]:
    """A forward pass that returns a state, or else what it was given."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        found = given if state is None else state
        return (found, None) if tuples else found

    return forward


@torch.no_grad()
def read_whole(
    model: hubedit.EditableModel,
    batch: Batch,
    place: str,
    text: torch.Tensor,
    at: torch.Tensor,
) -> tuple[torch.Tensor, Callable[[], Batch]]:
    """Read a batch once as it is.

    Args:
        place: name of the module to whose output something will be added at the subjects.
        text: int64 [places], the reading of each place that matters, and `at` its position.

    Returns:
        Logits [places, vocabulary] in float32, and what makes the batch to go on with: its tails,
        or the batch itself where the model, or these places, do not allow that.
    """
    layout = model.layout
    if layout.architecture != "causal" or bool((at < batch.lookup[text]).any()):
        return batch.logits(model, text, at), lambda: batch
    layer = layout.layer_of(place) or 0
    idle = [layout.at("block", number) for number in range(layer)]
    if place == layout.at("block", layer):
        idle.append(place)
    past = DynamicCache()
    whole = Batch({**batch.inputs, "past_key_values": past, "use_cache": True}, batch.lookup)
    kinds: list[bool] = []
    with ExitStack() as traces:
        below = traces.enter_context(model.trace(idle[-1])) if idle else None
        if idle:
            block = model.model.get_submodule(idle[-1])
            hook = block.register_forward_hook(
                lambda _module, _given, output: kinds.append(isinstance(output, tuple))
            )
            traces.callback(hook.remove)
        logits = whole.logits(model, text, at)
    state = below.output if below is not None else None

    def tails() -> Batch:
        cut = _cut(batch, past, state, idle, any(kinds))
        if cut is None:
            return batch
        with torch.no_grad():
            again = cut.logits(model, text, at)
        allowed = CLOSE * torch.finfo(model.model.dtype).eps * float(logits.abs().max())
        return cut if float((again - logits).abs().max()) <= allowed else batch

    return logits, tails


def _cut(
    batch: Batch,
    past: DynamicCache,
    state: torch.Tensor | None,
    idle: Sequence[str],
    tuples: bool,
) -> Tails | None:
    """The tails of a batch, from what the whole pass left; None where that is not all of it."""
    ids, mask, begins = batch.inputs["input_ids"], batch.inputs["attention_mask"], batch.lookup
    device, count = ids.device, len(begins)
    layers: list[Any] = list(past.layers)
    held = [getattr(layer, "keys", None) for layer in layers]
    if any(keys is None or keys.shape[2] != ids.shape[1] for keys in held):
        return None
    prefix = int(begins.max())
    left = mask.sum(1) - begins
    tail = int(left.max())
    ahead = torch.arange(tail, device=device)
    real = ahead < left[:, None]
    where = (begins[:, None] + ahead).clamp_max(ids.shape[1] - 1)
    behind = torch.arange(prefix, device=device) - (prefix - begins)[:, None]
    rows = torch.arange(count, device=device)[:, None]
    kept = []
    for number, layer in enumerate(layers):
        keys, values = layer.keys, layer.values
        if number < len(idle):  # not run: only the length of what it keeps is looked at
            shape = (count, keys.shape[1], prefix, keys.shape[3])
            blank = keys.new_zeros(1).expand(shape)
            kept.append((blank, blank))
        else:
            slots = behind.clamp_min(0)
            kept.append(
                (keys[rows, :, slots].transpose(1, 2), values[rows, :, slots].transpose(1, 2))
            )
    return Tails(
        inputs={
            "input_ids": ids.gather(1, where),
            "attention_mask": torch.cat([behind >= 0, real], 1).to(mask.dtype),
            "position_ids": where,
        },
        lookup=torch.zeros_like(begins),
        begins=begins,
        past=kept if prefix else [],
        state=None if state is None else state[rows, where],
        idle=idle,
        tuples=tuples,
    )
