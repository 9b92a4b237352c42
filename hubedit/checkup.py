"""What is installed and reachable, and whether a model can be edited, told without its weights."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from hubedit import __version__
from hubedit.artifacts import ArtifactStore, cache_home
from hubedit.errors import AccessError, HubEditError, HubError, UnsupportedModelError
from hubedit.hub import Hub
from hubedit.layouts import Layout, layout_for
from hubedit.located import KIND, stored_trace
from hubedit.manifest import STACK_FILE, Stack
from hubedit.mapping import EDITABLE
from hubedit.markdown import counted, nbytes
from hubedit.places import (
    HubPlace,
    Place,
    PlaceSource,
    base_record,
    depth_of,
    open_base,
    open_place,
)
from hubedit.plugins import Plugins
from hubedit.shards import Checkpoint

OpenHub = Callable[[], Hub]
State = Literal["ok", "note", "bad"]

LIBRARIES = ("torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "numpy")
SETTINGS = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HUBEDIT_ARTIFACTS",
    "HUBEDIT_DISABLE_PLUGINS",
    "HUBEDIT_HOME",
    "OMP_NUM_THREADS",
)
"""Environment variables that change what a run does and hold no secret."""
LOW_SPACE = 2 * 10**9
"""Bytes of free space in the cache below which a checkup says so."""
_SLOW_VOCABULARIES = ("vocab.json", "vocab.txt")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `ok`, worth a `note`, or `bad`: it stops an edit."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True)
class Checkup:
    """What was found, in order; `methods` are those that could edit the model that was named."""

    findings: tuple[Finding, ...]
    methods: tuple[str, ...] | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing is bad."""
        return all(finding.state != "bad" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The checkup as JSON."""
        found: dict[str, Any] = {
            "healthy": self.healthy,
            "findings": [asdict(finding) for finding in self.findings],
        }
        if self.methods is not None:
            found |= {"editable": self.healthy, "methods": list(self.methods)}
        return found


def environment(hub: Hub, plugins: Plugins) -> dict[str, Any]:
    """What a bug report needs to say: versions, plugins, endpoint, platform; never a token."""
    return {
        "hubedit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "plugins": {
            info.name: {
                "distribution": f"{info.distribution} {info.version}",
                "methods": [method.name for method in info.methods],
                "errors": info.errors,
            }
            for info in plugins.infos
        },
        "endpoint": shown_url(hub.url),
        "token": "set" if has_token(hub) else "none",
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def shown_url(url: str) -> str:
    """An address without a user name or password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def has_token(hub: Hub) -> bool:
    """Whether calls to this Hub carry a token."""
    from huggingface_hub import get_token

    return bool(hub.token) or (hub.token is None and get_token() is not None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


# -- this installation --------------------------------------------------------------------------


def check_installation(hub: OpenHub, plugins: Plugins) -> Checkup:
    """Look at versions, Hub, token, cache and plugins."""
    missing = [name for name in LIBRARIES if _version(name) is None]
    versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES if name not in missing)
    found = [
        Finding(
            "versions",
            "bad" if missing else "ok",
            f"hubedit {__version__}, Python {platform.python_version()}, {versions}"
            + (f"; missing: {', '.join(missing)}" if missing else ""),
        )
    ]
    try:
        found += _hub_findings(hub())
    except HubEditError as error:
        found.append(Finding("hub", "bad", str(error)))
    found.append(_cache_finding())
    for info in plugins.infos:
        methods = ", ".join(method.name for method in info.methods) or "no methods"
        found.append(
            Finding(
                f"plugin {info.name}",
                "bad" if info.errors else "ok",
                "; ".join(info.errors) or f"{info.distribution} {info.version}: {methods}",
            )
        )
    return Checkup(tuple(found))


def _hub_findings(hub: Hub) -> list[Finding]:
    url = shown_url(hub.url)
    try:
        hub.exists("hubedit/reachable")
    except AccessError:
        pass
    except HubError as error:
        return [Finding("hub", "bad", str(error).partition(": ")[2] or str(error))]
    found = [Finding("hub", "ok", f"{url} answers")]
    if not has_token(hub):
        return [
            *found,
            Finding("token", "note", "none: public models can be read and nothing pushed"),
        ]
    try:
        found.append(Finding("token", "ok", f"of {hub.user()}, and may write"))
    except AccessError as error:
        only_reads = "may only read" in str(error)
        found.append(Finding("token", "note" if only_reads else "bad", str(error)))
    return found


def _cache_finding() -> Finding:
    home = cache_home()
    there = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Finding("cache", "bad", f"{home} cannot be written; set HUBEDIT_HOME")
    free = shutil.disk_usage(there).free
    state: State = "note" if free < LOW_SPACE else "ok"
    return Finding("cache", state, f"{home}, {free / 1e9:.1f} GB free")


# -- one model ----------------------------------------------------------------------------------


def check_model(text: str, hub: OpenHub, plugins: Plugins, base: str | None = None) -> Checkup:
    """Say whether a model can be edited, and by which methods, from its headers and config.

    Args:
        text: a directory or `REPO[@REV]`; of an edit repository its base is looked at.
        hub: opens the Hub when it is needed.
        plugins: whose methods are asked for.
        base: where the base of an edit repository is, instead of where it points.

    Raises:
        HubEditError: there is no such model, or it may not be read.
    """
    place = open_place(text, hub)
    found: list[Finding] = []
    if STACK_FILE in place.files():
        stack = Stack.from_json(place.read(STACK_FILE))
        place = open_base(stack.base, hub, base)
        found.append(
            Finding(
                "stack",
                "ok",
                f"{counted(stack.height, 'edit')} of {stack.base.title}; one more can go",
            )
        )
    layout, findings = family(place)
    found += findings
    found += _weights(place, layout)
    if layout is not None:
        found += _edit_layer(place, layout)
    found += [_tokenizer(place), *_terms(place)]
    methods: tuple[str, ...] = ()
    if layout is not None:
        methods = tuple(
            method.name
            for method, _ in plugins.methods()
            if layout.architecture in method.architectures
        )
        names = ", ".join(methods)
        found.append(
            Finding("methods", "ok", f"{names} (`hubedit methods NAME` describes one)")
            if methods
            else Finding(
                "methods",
                "bad",
                f"no installed plugin edits {layout.architecture} models; install one that does",
            )
        )
    healthy = all(finding.state != "bad" for finding in found)
    return Checkup(tuple(found), methods if healthy else ())


def family(place: Place) -> tuple[Layout | None, list[Finding]]:
    """The layout of a model, and what its config says for and against editing it."""
    if "config.json" not in place.files():
        text = f"{place.title} has no config.json, so it is not a transformers model"
        return None, [Finding("config", "bad", text)]
    try:
        config = json.loads(place.read("config.json"))
    except ValueError as error:
        return None, [Finding("config", "bad", f"config.json is not JSON: {error}")]
    if not isinstance(config, dict):
        return None, [Finding("config", "bad", "config.json is not a JSON object")]
    found = []
    if config.get("auto_map"):
        found.append(
            Finding("code", "bad", "it brings code of its own (auto_map), which hubedit never runs")
        )
    quantised = config.get("quantization_config")
    if quantised:
        how = quantised.get("quant_method") if isinstance(quantised, dict) else None
        found.append(
            Finding(
                "quantised",
                "bad",
                f"by {how or 'quantization_config'}, so no edit is exact; edit the model it was "
                "made from, then quantise the result",
            )
        )
    try:
        layout = layout_for(config.get("model_type"))
    except UnsupportedModelError as error:
        return None, [*found, Finding("family", "bad", str(error))]
    detail = f"{layout.model_type}, a {layout.architecture} model"
    return layout, [*found, Finding("family", "ok", detail)]


def _edit_layer(place: Place, layout: Layout) -> Iterable[Finding]:
    """Which layer is edited where nobody names one, and who says so."""
    depth, reader = depth_of(json.loads(place.read("config.json"))), layout.encoder or layout
    if depth is None:
        return
    if depth in reader.edit_layers:
        text = f"{reader.edit_layers[depth]} of {depth}, as published"
        yield Finding("edit layer", "ok", text)
        return
    traced = any(ArtifactStore().held(KIND))
    trace = stored_trace(base_record(place).digest) if traced else None
    if trace is not None:
        text = f"{trace.layer} of {depth}, from a trace of {trace.prompts} prompt(s)"
        yield Finding("edit layer", "ok", f"{text} ({trace.address[:12]})")
        return
    third = reader.edit_layer(SimpleNamespace(**{reader.depth_key: depth}))
    text = f"none is published for {depth} blocks; {third} is taken, a third of the way up"
    yield Finding("edit layer", "note", f"{text}: `hubedit trace` finds the one that facts are at")


def parameter_of(tensor: str, layout: Layout) -> str:
    """The parameter name of a stored tensor: some files leave the family's prefix off."""
    named = [layout.block, layout.embeddings, layout.head, layout.reader.block]
    roots = [name.partition(".")[0] for name in named]
    return tensor if tensor.partition(".")[0] in roots else f"{roots[0]}.{tensor}"


def _weights(place: Place, layout: Layout | None) -> list[Finding]:
    try:
        top = [name for name in place.files() if "/" not in name]
        tensors = Checkpoint.open(PlaceSource(place, top)).tensors
    except UnsupportedModelError as error:
        return [Finding("weights", "bad", str(error))]
    other = sorted({info.dtype for info in tensors.values()} - set(EDITABLE))
    total = sum(info.end - info.begin for info in tensors.values())
    files = counted(len({info.file for info in tensors.values()}), "safetensors file")
    found = [
        Finding(
            "weights",
            "ok",
            f"{len(tensors)} tensors, {nbytes(total)}, in {files}",
        )
    ]
    if other:
        text = f"some tensors are {', '.join(other)}; only F32, BF16 and F16 can be edited"
        found.append(Finding("dtypes", "note", text))
    if layout is not None:
        name = layout.mlp_out_weight(0)
        by_parameter = {parameter_of(tensor, layout): tensor for tensor in tensors}
        matrix = tensors[by_parameter[name]] if name in by_parameter else None
        if matrix is None:
            text = f"the files hold no {name}, which models of type {layout.model_type} have"
            found.append(Finding("layout", "bad", text))
        elif matrix.dtype not in EDITABLE:
            text = f"{name} is stored as {matrix.dtype}; only F32, BF16 and F16 can be edited"
            found.append(Finding("layout", "bad", text))
    return found


def _tokenizer(place: Place) -> Finding:
    names = place.files()
    if "tokenizer.json" in names:
        return Finding("tokenizer", "ok", "a fast one (tokenizer.json)")
    slow = [name for name in _SLOW_VOCABULARIES if name in names]
    if slow:
        text = f"no tokenizer.json; transformers makes a fast tokenizer of {slow[0]} if it can"
        return Finding("tokenizer", "note", text)
    sentence = sorted(name for name in names if "/" not in name and name.endswith(".model"))
    if sentence:
        text = f"only {sentence[0]}; add a tokenizer.json, which `save_pretrained` writes"
        return Finding("tokenizer", "bad", text)
    return Finding("tokenizer", "bad", "none; put its tokenizer.json beside the weights")


def _terms(place: Place) -> Iterable[Finding]:
    if not isinstance(place, HubPlace):
        return
    known, gated = place.hub.describe(place.repo, place.commit)
    yield Finding("licence", "ok" if known else "note", known or "the card names none")
    if gated:
        text = "gated: edited weights go to a private repository unless --force is given"
        yield Finding("access", "note", text)
