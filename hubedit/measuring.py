"""What is measured of a model and kept: statistics and traces, made, listed, shared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit import revisions
from hubedit.artifacts import ABOUT, ArtifactStore, Held
from hubedit.context import Run, Silent, Talk
from hubedit.corpora import read_corpus
from hubedit.editions import Edition, open_edition
from hubedit.errors import ConfigError, NotOnHubError, RecipeError, RequestError
from hubedit.gathering import gathered
from hubedit.hub import Hub, Pushed
from hubedit.located import layout_of
from hubedit.locating import Fact, Tracing, trace_facts
from hubedit.method import Corpus
from hubedit.moments import (
    FACTS,
    KIND,
    divide,
    quality,
    second_moments,
    settled,
    statistic_key,
)
from hubedit.rows import FactEdit
from hubedit.shelf import Shelf, lookup

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

OpenHub = Callable[[], Hub]


@dataclass(frozen=True)
class Wanted:
    """Which statistics: of which layers, over which texts."""

    layers: str | None = None
    """Such as `4` or `3-5,8`; None: the layer that is edited where nobody says."""
    corpus: str | None = None
    texts: int = 100_000
    length: int = 1024


@contextmanager
def opened(
    text: str, hub: OpenHub, *, base: str | None = None, device: str = "cpu", talk: Talk
) -> Iterator[tuple[LoadedModel, Edition]]:
    """Load the model of `DIR` or `REPO[@REV]` with all its edits, at rest."""
    from hubedit import models

    edition = open_edition(text, hub, base)
    talk.log(f"loading {edition.place.title}")
    with revisions.model_folder(edition.base, edition.presence()) as folder:
        yield (
            models.load(
                folder,
                device=device,
                layout=layout_of(edition.stack.base),
                overlay=edition.overlay(),
                texts=edition.texts(),
                identity=edition.stack.base.digest,
            ),
            edition,
        )


def compute(
    text: str,
    hub: OpenHub,
    wanted: Wanted,
    *,
    base: str | None = None,
    device: str = "cpu",
    talk: Talk | None = None,
) -> list[Held]:
    """Take the second moments of what enters the second MLP matrices, by one pass for all layers.

    They are those that a method asks for with the same corpus and numbers. What the store has, or
    a repository named by `$HUBEDIT_ARTIFACTS`, is not computed again.

    Raises:
        RecipeError: there are no texts.
        ConfigError: the model has no such layer.
    """
    import torch

    talk = talk or Silent()
    store = ArtifactStore(elsewhere=lookup(hub))
    with opened(text, hub, base=base, device=device, talk=talk) as (model, edition):
        corpus, modules = _named(model, edition, wanted, hub)
        layout = model.layout.reader
        run = Run(torch.Generator(), 0, corpus, False, talk, store)
        texts = divide(corpus, wanted.texts)
        moments = second_moments(model, modules, texts, run, length=wanted.length)
        made = []
        for moment in moments:
            about = {
                "base": edition.stack.base.title,
                "edits": edition.stack.height,
                "model_type": layout.model_type,
                "source": corpus.source,
                "quality": moment.quality(),
            }
            path = store.root / moment.artifact
            _write_about(path, about)
            made.append(Held(moment.artifact, path, held_key(path), True))
    return made


def foreseen(
    text: str,
    hub: OpenHub,
    wanted: Wanted,
    *,
    base: str | None = None,
    device: str = "cpu",
    talk: Talk | None = None,
) -> list[dict[str, Any]]:
    """What `compute` would make, in the fields of `described`, without reading a text.

    `finished` is true of what is here already, and `bytes` is what a matrix takes.
    """
    store = ArtifactStore()
    with opened(text, hub, base=base, device=device, talk=talk or Silent()) as (model, edition):
        corpus, modules = _named(model, edition, wanted, hub)
        texts = divide(corpus, wanted.texts)
        length, skip = settled(model, wanted.length, None)
        rows = []
        for module in modules:
            key = statistic_key(model, module, texts, length, skip)
            address, path = store.address(key), store.get(key)
            if path is not None:
                rows.append(described(Held(address, path, key, True)))
                continue
            sides = model.weight(f"{module}.weight").shape
            width = int(sides[0] if model.layout.conv1d else sides[1])
            rows.append(
                {
                    "artifact": address,
                    "finished": False,
                    "model": edition.stack.base.title,
                    "module": module,
                    "source": corpus.source,
                    "texts": len(texts.counted),
                    "length": length,
                    "tokens": None,
                    "width": width,
                    "error": None,
                    "quality": None,
                    "bytes": 8 * width**2,
                }
            )
    return rows


def _named(
    model: LoadedModel, edition: Edition, wanted: Wanted, hub: OpenHub
) -> tuple[Corpus, list[str]]:
    """The texts, and the matrices whose inputs are counted."""
    corpus = read_corpus(wanted.corpus, edition, hub)
    if corpus is None:
        raise RecipeError(
            f"{edition.place.title} ships no corpus.txt; give texts with --corpus FILE or "
            "--corpus hf://datasets/owner/name (without any, an edit lets the model write "
            "its own)"
        )
    layout = model.layout.reader
    layers = layers_of(wanted.layers, layout.depth(model.model.config))
    layers = layers or [layout.edit_layer(model.model.config)]
    return corpus, [layout.at("mlp_out", layer) for layer in layers]


def read_facts(
    request: str | None, prompt: str | None, subject: str | None, most: int, hub: OpenHub
) -> list[Fact]:
    """Facts to trace: of a file or data set of rows, or one prompt and its subject.

    Raises:
        RequestError: there are none, or both are named.
    """
    if request is not None and (prompt or subject):
        raise RequestError(
            "facts to trace come from --request or from --prompt and --subject; leave one out"
        )
    if request is None:
        if not prompt or not subject:
            raise RequestError(
                "name facts to trace: --request FILE, or --prompt 'The mother tongue of {} is' "
                "and --subject TEXT"
            )
        start = prompt.find("{}")
        if start < 0:
            raise RequestError(f"the prompt {prompt!r} has no {{}} where the subject goes")
        return [Fact(prompt.replace("{}", subject, 1), (start, start + len(subject)))]
    rows = gathered(FactEdit, request, hub)
    count = min(most, len(rows))
    rows = [rows[number * len(rows) // count] for number in range(count)]
    return [
        Fact(row.text, row.subject_span, f" {row.true_target.strip()}" if row.true_target else None)
        for row in rows
    ]


def trace(
    text: str,
    hub: OpenHub,
    facts: Sequence[Fact],
    how: Tracing,
    *,
    base: str | None = None,
    device: str = "cpu",
    talk: Talk | None = None,
) -> tuple[str, dict[str, Any]]:
    """Trace facts of a model and keep what was found; see `hubedit.locating`.

    Returns:
        The artifact's address, and what it says.
    """
    import torch

    talk = talk or Silent()
    with opened(text, hub, base=base, device=device, talk=talk) as (model, edition):
        store = ArtifactStore(elsewhere=lookup(hub))
        run = Run(torch.Generator(), how.seed, None, False, talk, store)
        path, found = trace_facts(model, facts, how, run)
        record = edition.stack.base
        about = {"base": record.title, "digest": record.digest, "edits": edition.stack.height}
        _write_about(path, {**about, "model_type": record.model_type})
    return path.name, found


def _write_about(path: Path, about: Mapping[str, Any]) -> None:
    content = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False)
    (path / ABOUT).write_text(content + "\n", encoding="utf-8")


def held_key(path: Path) -> dict[str, Any]:
    """The key of a finished artifact."""
    key: dict[str, Any] = json.loads((path / "key.json").read_bytes())
    return key


def layers_of(text: str | None, depth: int) -> list[int]:
    """Read `3-5,8` as numbers of blocks, in rising order; none of None.

    Raises:
        ConfigError: it cannot be read, or the model has no such block.
    """
    found: set[int] = set()
    for part in (text or "").split(",") if text else ():
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None:
            raise ConfigError(f"layers {text!r} cannot be read; write numbers such as 4 or 3-5,8")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    beyond = sorted(layer for layer in found if layer >= depth)
    if beyond or (text and not found):
        raise ConfigError(f"layers {text!r} were asked for; the model has layers 0 to {depth - 1}")
    return sorted(found)


def described(held: Held) -> dict[str, Any]:
    """What a list says of a statistic."""
    facts, about = held.facts(FACTS), held.facts(ABOUT)
    known = "tokens" in facts
    return {
        "artifact": held.address,
        "finished": held.finished,
        "model": about.get("base"),
        "module": held.key.get("module"),
        "source": facts.get("source"),
        "texts": held.key.get("count"),
        "length": held.key.get("length"),
        "tokens": facts.get("tokens"),
        "width": facts.get("width"),
        "error": facts.get("error"),
        "quality": quality(facts["tokens"], facts["width"], facts["error"]) if known else None,
        "bytes": held.nbytes,
    }


def chosen(names: Sequence[str], kind: str = KIND) -> list[Held]:
    """The finished artifacts of the local store whose addresses begin so; all without names.

    Raises:
        NotOnHubError: there is none, or more than one.
    """
    here = [held for held in ArtifactStore().held(kind) if held.finished]
    if not here:
        raise NotOnHubError("the store holds no statistics; make some with `hubedit stats compute`")
    return [held for name in names for held in [_one(name, here)]] if names else here


def _one(name: str, here: Sequence[Held]) -> Held:
    found = [held for held in here if held.address.startswith(name)]
    if len(found) != 1:
        known = ", ".join(held.address[:12] for held in (found or here))
        raise NotOnHubError(
            f"{'several artifacts begin' if found else 'no artifact begins'} with {name!r}; the "
            f"store has {known}"
        )
    return found[0]


def push(names: Sequence[str], to: str, hub: Hub, *, private: bool = True) -> Pushed | None:
    """Add statistics of the local store to a dataset repository; None if it has them all."""
    held = chosen(names)
    return Shelf.open(to, hub, new=True).push(held, private=private)


def pull(repo: str, names: Sequence[str], hub: Hub) -> tuple[list[str], list[str]]:
    """Take artifacts of a dataset repository into the local store, checked.

    Args:
        repo: `REPO[@REV]`.
        names: how the addresses begin; all without names.
        hub: where it lies.

    Returns:
        The addresses that came, and those that were here already.

    Raises:
        NotOnHubError: the repository has none that begins so.
        ManifestError: a file is not the one that is listed.
    """
    shelf, store = Shelf.open(repo, hub), ArtifactStore()
    wanted = list(shelf.index)
    for name in names:
        if not any(address.startswith(name) for address in shelf.index):
            known = ", ".join(address[:12] for address in shelf.index)
            raise NotOnHubError(f"{repo} has no artifact {name!r}; it has {known}")
    if names:
        wanted = [one for one in wanted if any(one.startswith(name) for name in names)]
    came = [address for address in wanted if store.take(address, shelf.fetch)]
    return came, [address for address in wanted if address not in came]
