"""What a run would load, change and write, predicted from headers and config alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hubedit import run, targets
from hubedit.checkup import family, parameter_of
from hubedit.corpora import CORPUS_FILE, DATASET, corpus_path
from hubedit.delta import low_rank_file_nbytes
from hubedit.editions import Edition, edition_at
from hubedit.errors import ConfigError, UnsupportedModelError
from hubedit.hub import Hub
from hubedit.layouts import Layout
from hubedit.located import with_trace
from hubedit.manifest import STACK_FILE
from hubedit.mapping import EDITABLE
from hubedit.method import Config, Method
from hubedit.places import (
    Place,
    base_record,
    checkpoint,
    depth_of,
    model_file_names,
    open_place,
)
from hubedit.plugins import Plugins, load_plugins
from hubedit.recipe import Recipe
from hubedit.rows import Row
from hubedit.shards import Checkpoint, TensorInfo

OpenHub = Callable[[], Hub]

INTERPRETER_NBYTES = 450_000_000
"""Resident bytes of a process that has loaded torch (for CPUs), transformers and NumPy."""
TOKENS_AT_ONCE = 8192
"""Tokens in the largest forward pass of a statistic, where texts are long enough."""
TEXTS_AT_ONCE = 64
CHARACTERS_PER_TOKEN = 3.5
COPIES_OF_STATISTIC = 4
"""The sum, the mean, its damped copy and its factor are in memory together."""
BYTES_PER_INPUT = 40
"""Of one input of an MLP's second matrix and token: activation, temporaries, and float64."""
TOKENS_PER_STEP = 512
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
_DIGEST = "0" * 64


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that the run may change; `rank` is that of its update, where the method says."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    rank: int | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a run, by what they are for; an estimate.

    `work` is the largest of what comes one after the other: the statistic with a pass over its
    texts, a step of an optimisation with its logits, the host's comparison of the largest tensor.
    """

    interpreter: int
    weights: int
    work: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.interpreter + self.weights + self.work


@dataclass(frozen=True)
class Plan:
    """What a run would do; None where it cannot be told before.

    `download` counts the base's model files, all of which the run needs. `delta` is the exact size
    of the delta file, or None; `delta_at_most` the size of the tensors it could not exceed by more
    than a header. `weights` are the model files that would be written beside it, `weights_changed`
    those among them that differ from the base's.
    """

    base: str
    model_type: str
    height: int
    method: str
    config: Mapping[str, Any]
    rows: int
    tensors: tuple[PlannedTensor, ...] | None
    tensors_total: int
    elements: int | None
    elements_total: int
    download: int
    delta: int | None
    delta_at_most: int
    weights: int
    weights_changed: int
    memory: Memory
    device: str
    dtype: str
    push_to: str | None = None

    @property
    def upload(self) -> int | None:
        """Bytes of large files that a push sends; the records beside them are some ten kB."""
        return None if self.delta is None else self.delta + self.weights

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON."""
        found = asdict(self)
        found["memory"]["total"] = self.memory.total
        return {**found, "upload": self.upload}


def plan(
    recipe: Recipe,
    hub: OpenHub,
    *,
    plugins: Plugins | None = None,
    push: bool = False,
    weights: bool = False,
) -> Plan:
    """Predict a run from headers, config and request, and refuse what cannot work.

    Args:
        recipe: the whole input.
        hub: opens the Hub when it is needed.
        plugins: whose methods there are; by default those that are installed.
        push: also look at the repository that the edit would be pushed to.
        weights: whether edited weights would be written beside the delta.

    Raises:
        HubEditError: what the run itself would refuse before it loads the model.
    """
    method, _ = (plugins or load_plugins()).method(recipe.plugin)
    try:
        config = method.config_type().read(recipe.config)
    except ConfigError as error:
        raise ConfigError(f"method {method.name!r}: {error}") from error
    rows = run.read_rows(recipe, method, hub)
    target = targets.find_target(recipe.to, recipe.base, hub()) if push else None
    place = open_place(recipe.base, hub)
    start: Edition | None = None
    if target is not None:
        start = targets.open_start(recipe.base, hub, target)
    elif STACK_FILE in place.files():
        start = edition_at(place, hub)
    base = start.base if start else place
    layout = with_trace(
        _layout(base, method),
        depth_of(json.loads(base.read("config.json"))),
        lambda: (start.stack.base if start else base_record(base)).digest,
    )
    stored = checkpoint(base)
    parameters = {parameter_of(name, layout): name for name in stored.tensors}
    planned = _tensors(method, layout, parameters, stored, rows, config)
    weights = weights or bool(target and target.weights) or bool(start and start.stack.weights)
    listed = base.files()
    sizes = {name: listed[name].size for name in model_file_names(base)}
    touched = {stored.info(item.name).file for item in planned or ()}
    elements = sum(math.prod(info.shape) for info in stored.tensors.values())
    return Plan(
        base=start.stack.base.title if start else place.title,
        model_type=layout.model_type,
        height=(start.stack.height if start else 0) + 1,
        method=method.name,
        config=config.model_dump(mode="json"),
        rows=len(rows),
        tensors=planned,
        tensors_total=len(stored.tensors),
        elements=None if planned is None else sum(math.prod(item.shape) for item in planned),
        elements_total=elements,
        download=sum(sizes.values()),
        delta=_delta_nbytes(planned, layout, parameters),
        delta_at_most=sum(item.nbytes for item in (_all(stored) if planned is None else planned)),
        weights=sum(sizes.values()) if weights else 0,
        weights_changed=sum(sizes[file] for file in touched) if weights else 0,
        memory=_memory(recipe, base, layout, stored, planned, elements),
        device=recipe.device,
        dtype=recipe.dtype,
        push_to=target.repo if target else None,
    )


def _layout(base: Place, method: type[Method[Any, Any]]) -> Layout:
    layout, findings = family(base)
    problems = [finding.detail for finding in findings if finding.state == "bad"]
    if layout is None or problems:
        raise UnsupportedModelError(f"{base.title} cannot be edited: {'; '.join(problems)}")
    if layout.architecture not in method.architectures:
        raise UnsupportedModelError(
            f"method {method.name!r} edits {', '.join(sorted(method.architectures))} models, and "
            f"{base.title} is a {layout.architecture} one; `hubedit methods` lists the others"
        )
    return layout


def _planned(name: str, info: TensorInfo, rank: int | None = None) -> PlannedTensor:
    return PlannedTensor(name, info.shape, info.dtype, info.end - info.begin, rank)


def _all(stored: Checkpoint) -> list[PlannedTensor]:
    return [_planned(name, info) for name, info in stored.tensors.items()]


def _tensors(
    method: type[Method[Any, Any]],
    layout: Layout,
    parameters: Mapping[str, str],
    stored: Checkpoint,
    rows: Sequence[Row],
    config: Config,
) -> tuple[PlannedTensor, ...] | None:
    """The tensors that the method says it will change, with the ranks it predicts."""
    shapes = {name: stored.info(tensor).shape for name, tensor in parameters.items()}
    ranks = method.predict(layout, shapes, rows, config)
    names = method().targets(layout, config) if ranks is None else list(ranks)
    if names is None:
        return None
    missing = [name for name in names if name not in parameters]
    if missing:
        layers = [layer for name in parameters if (layer := layout.layer_of(name)) is not None]
        raise ConfigError(
            f"method {method.name!r} would change {missing[0]}, which this model lacks; it has "
            f"layers 0 to {max(layers, default=0)}"
        )
    return tuple(
        _planned(parameters[name], stored.info(parameters[name]), (ranks or {}).get(name))
        for name in names
    )


def _delta_nbytes(
    planned: Sequence[PlannedTensor] | None, layout: Layout, parameters: Mapping[str, str]
) -> int | None:
    """Bytes of the delta file, if every update is sure to be stored as it is predicted."""
    if not planned:
        return None
    module_of = {tensor: layout.module_of(name) for name, tensor in parameters.items()}
    for item in planned:
        if item.rank is None or len(item.shape) != 2 or item.dtype not in EDITABLE:
            return None
        too_high = item.rank > min(item.shape) or 4 * item.rank * sum(item.shape) >= item.nbytes
        if too_high or module_of[item.name] in ("embeddings", "head"):
            return None  # another kind is stored, or aliases that loading alone can tell
    return low_rank_file_nbytes(
        {item.name: (item.dtype, item.shape, item.rank or 0) for item in planned},
        aliases={item.name: () for item in planned},
        meta={"base": _DIGEST, "parent": _DIGEST},
    )


# -- memory -------------------------------------------------------------------------------------


def _memory(
    recipe: Recipe,
    base: Place,
    layout: Layout,
    stored: Checkpoint,
    planned: Sequence[PlannedTensor] | None,
    elements: int,
) -> Memory:
    width = _WIDTHS[recipe.dtype]
    compared = max(
        (
            2 * (info.end - info.begin) + width * math.prod(info.shape)
            for info in stored.tensors.values()
        ),
        default=0,
    )
    vocabulary = max((info.shape[0] for info in stored.tensors.values() if info.shape), default=0)
    logits = 2 * 4 * TOKENS_PER_STEP * vocabulary
    work = [compared]
    inputs = [
        item.shape[0 if layout.conv1d else 1]
        for item in planned or ()
        if item.rank is not None and len(item.shape) == 2
    ]
    if inputs:
        statistic = 8 * max(inputs) ** 2
        passed = BYTES_PER_INPUT * max(inputs) * _tokens_at_once(recipe, base)
        work.append(COPIES_OF_STATISTIC * statistic + passed)
        work.append(2 * statistic + logits)
    else:
        work.append(logits)
    return Memory(INTERPRETER_NBYTES, width * elements, max(work))


def _tokens_at_once(recipe: Recipe, base: Place) -> int:
    """Tokens of the largest forward pass of a statistic, guessed from the first texts."""
    listed = base.files()
    if recipe.corpus is not None:
        if recipe.corpus.startswith(DATASET):
            return TOKENS_AT_ONCE
        path = corpus_path(recipe.corpus)
        with path.open("rb") as file:
            sample, size = file.read(1 << 16), path.stat().st_size
    elif CORPUS_FILE in listed:
        size = listed[CORPUS_FILE].size
        sample = base.read_range(CORPUS_FILE, 0, min(size, 1 << 16))
    else:
        return TEXTS_AT_ONCE * 64
    pieces = [text for text in sample.split(b"\n\n" if b"\n\n" in sample else b"\n") if text]
    characters = min(len(sample) / max(len(pieces), 1) * TEXTS_AT_ONCE, size)
    return min(int(characters / CHARACTERS_PER_TOKEN), TOKENS_AT_ONCE)
