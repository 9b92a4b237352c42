"""A recipe from top to bottom: resolve, load, apply, encode, rebuild, probe, write, publish."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit import __version__, diff, editions, places, probes, publishing, revisions
from hubedit.context import Run, Silent, Talk
from hubedit.corpora import read_corpus
from hubedit.delta import encode
from hubedit.editions import Edition
from hubedit.errors import ConfigError, MethodError, PluginError, UnsupportedModelError
from hubedit.heatmap import write_heatmap
from hubedit.hub import Hub
from hubedit.manifest import (
    DeltaRecord,
    EnvironmentRecord,
    Manifest,
    RequestRecord,
    TensorRecord,
    result_digest,
    touched_tensors,
)
from hubedit.method import Config, Corpus, Method
from hubedit.plugins import PluginInfo, Plugins, load_plugins, method_record
from hubedit.publishing import PushPlan, Target
from hubedit.recipe import Recipe
from hubedit.requests import FactEdit, Row, fact_edits, read_records, request_digest
from hubedit.updates import StoredTensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hubedit.delta import Encoded
    from hubedit.hub import Pushed
    from hubedit.models import LoadedModel

OpenHub = Callable[[], Hub]


@dataclass(frozen=True)
class Job:
    """A recipe whose names are resolved: which method, which rows, which start, which target."""

    recipe: Recipe
    method: type[Method[Any, Any]]
    plugin: PluginInfo
    config: Config
    rows: Sequence[Row]
    start: Edition
    target: Target | None
    weights: bool
    corpus: Corpus | None


@dataclass(frozen=True)
class Applied:
    """A finished edit on disk."""

    directory: Path
    manifest: Manifest
    probes: Sequence[probes.Probe]


def prepare(
    recipe: Recipe,
    hub: OpenHub,
    *,
    plugins: Plugins | None = None,
    push: bool = False,
    weights: bool = False,
) -> Job:
    """Resolve all that a recipe names, and refuse what cannot work, before anything is loaded.

    Raises:
        HubEditError: whatever is wrong, in one sentence.
    """
    method, plugin = (plugins or load_plugins()).method(recipe.plugin)
    try:
        config = method.config_type().read(recipe.config)
    except ConfigError as error:
        raise ConfigError(f"method {method.name!r}: {error}") from error
    rows = read_rows(recipe, method)
    target = publishing.find_target(recipe.to, recipe.base, hub()) if push else None
    start = publishing.open_start(recipe.base, hub, target)
    weights = weights or (target is not None and target.weights) or start.stack.weights
    return Job(
        recipe,
        method,
        plugin,
        config,
        rows,
        start,
        target,
        weights,
        read_corpus(recipe, start, hub),
    )


def apply(
    job: Job,
    output: Path | None = None,
    *,
    force: bool = False,
    talk: Talk | None = None,
) -> Applied:
    """Run a job: edit the model, store the change, and write its revision to a directory.

    Nothing appears at `output` (by default a new directory named after the base and the edit)
    before it is complete.

    Raises:
        HubEditError: the edit cannot be made; nothing is left behind.
    """
    from hubedit import models

    talk = talk or Silent()
    if output is not None:
        revisions.check_output(output)
    recipe, start = job.recipe, job.start
    with _threads(recipe.threads):
        talk.log(f"loading {start.place.title}")
        overlay = start.overlay()
        folder = start.base.local(places.model_file_names(start.base))
        model = models.load(
            folder,
            dtype=recipe.dtype,
            device=recipe.device,
            overlay=overlay,
            identity=start.stack.base.digest,
        )
        _check_architecture(model, job.method)

        asked = probes.questions(job.rows)
        spoken = probes.for_transcripts(asked)
        with talk.progress("questions before", total=None):
            before = probes.ask(model, asked)
            said = model.generate([question.prompt for question in spoken], 12)

        run = run_method(model, job, force, talk)
        encoded = encode(
            model.changes(),
            lambda name: overlay[name] if name in overlay else model.checkpoint.read(name),
            meta={"base": start.stack.base.digest, "parent": start.stack.result},
        )
        for choice in encoded.choices:
            talk.log(f"{choice.name}: {choice.kind} ({choice.reason})")

        model.restore()
        for name, after in encoded.after.items():
            model.set_tensor(name, after)
        with talk.progress("questions after", total=None):
            found = probes.pair(asked, before, probes.ask(model, asked))
            says = model.generate([question.prompt for question in spoken], 12)

        content = encoded.delta.to_bytes()
        manifest = _manifest(job, model, run, encoded, content).model_copy(
            update={
                "scores": probes.scores(found),
                "transcripts": probes.transcripts(spoken, said, says),
                "not_tested": probes.not_tested(job.rows, found),
            }
        )
        depth = model.layout.depth(model.model.config)
    output = output or Path(f"{_base_name(start)}-{manifest.edit}")
    _write(job, output, manifest, found, content, {**overlay, **encoded.after}, depth, talk)
    return Applied(output, manifest, found)


def publish(
    applied: Applied, hub: Hub, to: str | None, *, direct: bool = False, force: bool = False
) -> tuple[PushPlan, Pushed]:
    """Push a finished edit: one commit, as a pull request unless `direct`."""
    plan, _ = publishing.plan_push(applied.directory, hub, to, direct=direct, force=force)
    body = revisions.review_text(applied.directory)
    return plan, publishing.publish(applied.directory, hub, plan, body=body)


def load(
    repo: str,
    revision: str | None = None,
    *,
    base: str | None = None,
    dtype: str = "auto",
    hub: Hub | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load an edited model: its base at the exact commit, with every edit of the stack on it.

    Args:
        repo: an edit repository, or a directory that `hubedit apply` wrote.
        revision: a branch, tag such as `v1`, `refs/pr/N` or commit.
        base: a directory or repository to take the base from instead of where the stack points.
        dtype: `auto` keeps the stored one.
        hub: the Hub to talk to; by default the one that huggingface_hub is set up for.

    Raises:
        HubEditError: it does not exist, is damaged, or its base differs from what was recorded.
    """
    from hubedit import models

    def opened() -> Hub:
        return hub or Hub()

    edition = editions.edits_of(f"{repo}@{revision}" if revision else repo, opened, base)
    overlay = edition.overlay()
    touched = touched_tensors(edition.manifests)
    for name, tensor in overlay.items():
        if tensor.sha256() != touched[name][1]:
            raise MethodError(
                f"{name} of {edition.place.title} was rebuilt to other bits than recorded"
            )
    folder = edition.base.local(places.model_file_names(edition.base))
    return models.load_for_use(folder, overlay=overlay, dtype=dtype)


# -- the steps ----------------------------------------------------------------------------------


def read_rows(recipe: Recipe, method: type[Method[Any, Any]]) -> Sequence[Row]:
    """Read the request as rows of the type that the method takes.

    Raises:
        RequestError: it cannot be read, is empty, or a row is not usable.
        PluginError: the method takes a type of row that this version cannot read.
    """
    if method.row_type() is not FactEdit:
        raise PluginError(
            f"method {method.name!r} takes rows of type {method.row_type().__name__}, and "
            "this version "
            "reads FactEdit; a newer hubedit may know it: pip install -U hubedit"
        )
    if isinstance(recipe.request, str):
        return fact_edits(read_records(Path(recipe.request)), recipe.request)
    return fact_edits(recipe.request)


def _check_architecture(model: LoadedModel, method: type[Method[Any, Any]]) -> None:
    if model.layout.architecture not in method.architectures:
        raise UnsupportedModelError(
            f"method {method.name!r} edits {', '.join(sorted(method.architectures))} "
            "models, and this is a "
            f"{model.layout.architecture} one ({model.layout.model_type}); `hubedit "
            "methods` lists the others"
        )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run with a fixed number of torch threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_method(model: LoadedModel, job: Job, force: bool, talk: Talk) -> Run:
    """Let the method change the model, with everything random seeded."""
    import torch

    generator = torch.Generator().manual_seed(job.recipe.seed)
    run = Run(generator, job.recipe.seed, job.corpus, force, talk)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.recipe.seed)
        job.method().apply(model, job.rows, job.config, run)
    return run


def _manifest(job: Job, model: LoadedModel, run: Run, encoded: Encoded, content: bytes) -> Manifest:
    """Write down where the delta came from."""
    stack = job.start.stack
    tensors = tuple(
        TensorRecord(
            name=change.name,
            aliases=tuple(model.aliases(change.name)),
            dtype=change.dtype,
            shape=tuple(change.shape),
            before=change.sha256_before,
            after=change.sha256_after,
            kind=change.kind,
            reason=next(choice.reason for choice in encoded.choices if choice.name == change.name),
            rank=change.rank,
            elements_changed=change.elements_changed,
            elements_total=change.elements_total,
            relative_norm=change.relative_norm,
            nbytes=change.nbytes,
            layer=model.layout.layer_of(model.parameter_of(change.name)),
            module=model.layout.module_of(model.parameter_of(change.name)),
        )
        for change in encoded.changes
    )
    sha256 = hashlib.sha256(content).hexdigest()
    height = stack.height + 1
    draft = Manifest(
        edit=f"{height:04d}-{job.method.name}-{sha256[:8]}",
        height=height,
        base=stack.base,
        parent=stack.result,
        result=stack.result,
        method=method_record(job.method),
        plugin=job.plugin.record(),
        config=job.config.model_dump(mode="json"),
        request=_request_record(job.rows),
        seed=job.recipe.seed,
        environment=_environment(job.recipe),
        record=run.recorded,
        overruled=tuple(run.overruled),
        tensors=tensors,
        delta=DeltaRecord(nbytes=len(content), sha256=sha256),
    )
    touched = touched_tensors([*job.start.manifests, draft])
    return draft.model_copy(update={"result": result_digest(stack.base.files, touched)})


def _request_record(rows: Sequence[Row]) -> RequestRecord:
    return RequestRecord(
        type=type(rows[0]).__name__,
        count=len(rows),
        sha256=request_digest(rows),
        rows=tuple(row.model_dump(mode="json", exclude_defaults=True) for row in rows),
        in_words=tuple(row.describe() for row in rows if isinstance(row, FactEdit)),
    )


def _environment(recipe: Recipe) -> EnvironmentRecord:
    import numpy
    import torch
    import transformers

    return EnvironmentRecord(
        hubedit=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        numpy=numpy.__version__,
        threads=torch.get_num_threads(),
        machine=f"{platform.system()} {platform.machine()}",
        device=recipe.device,
        dtype=recipe.dtype,
    )


def _write(
    job: Job,
    output: Path,
    manifest: Manifest,
    found: Sequence[probes.Probe],
    content: bytes,
    tensors: Mapping[str, StoredTensor],
    depth: int,
    talk: Talk,
) -> None:
    """Write the revision; it appears at `output` when it is complete."""
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch, "heatmap.png")
        write_heatmap(manifest, picture, layers=depth)
        files = {
            "delta.safetensors": content,
            "probes.jsonl": probes.to_jsonl(found).encode(),
            "DIFF.md": diff.render_diff(
                manifest, [probe.model_dump() for probe in found], layers=depth
            ).encode(),
            "heatmap.png": picture.read_bytes(),
        }
    same = output.name.endswith(manifest.edit)
    repo = job.target.repo if job.target else job.recipe.to
    with revisions.finished_directory(output, replace=same) as work:
        if job.weights:
            talk.log("writing the edited weights")
            revisions.write_weights(work, job.start.base, tensors)
        revisions.add_edit(work, job.start, manifest, files, weights=job.weights, repo=repo)


def _base_name(start: Edition) -> str:
    base = start.stack.base
    return (base.repo or base.directory or "model").rpartition("/")[2]
