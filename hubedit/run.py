"""A recipe from top to bottom: resolve, load, apply, encode, rebuild, probe, write, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit import (
    chat,
    disclosure,
    editions,
    keeping,
    probes,
    publishing,
    recording,
    revisions,
    targets,
)
from hubedit.artifacts import ArtifactStore
from hubedit.blame import brief, place_of
from hubedit.context import Check, Run, Silent, Talk, device_of, threads
from hubedit.corpora import read_corpus
from hubedit.delta import TextFile, encode
from hubedit.discretion import (
    Discreet,
    Quotations,
    discreet,
    refuse_settings,
    refuse_telltales,
    said_of_any,
)
from hubedit.editions import Edition
from hubedit.errors import (
    ConfigError,
    DeltaError,
    HubEditError,
    MethodError,
    NonFiniteUpdateError,
    OutputError,
    PluginError,
    UnsupportedModelError,
)
from hubedit.gathering import gathered
from hubedit.hub import Hub
from hubedit.located import layout_of
from hubedit.manifest import touched_tensors
from hubedit.markdown import counted
from hubedit.method import Config, Corpus, Earlier, Method
from hubedit.plugins import PluginInfo, Plugins, load_plugins
from hubedit.publishing import PushPlan
from hubedit.recipe import Recipe
from hubedit.requests import refuse_overlap, rows_of
from hubedit.rows import Row
from hubedit.shelf import lookup
from hubedit.targets import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hubedit.hub import Pushed
    from hubedit.manifest import Manifest
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
    key: bytes | None
    """Of an edit whose request is not disclosed."""
    earlier: Sequence[Earlier] | None = None
    """What the method is told that it made before; by default what the stack says."""


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
    rows = read_rows(recipe, method, hub)
    target = targets.find_target(recipe.to, recipe.base, hub()) if push else None
    start = targets.open_start(recipe.base, hub, target)
    weights = weights or (target is not None and target.weights) or start.stack.weights
    disclosed = (recipe.disclose or ("none" if method.kind == "unlearn" else "full")) == "full"
    key = None if disclosed else disclosure.edit_key(start.stack.result, rows)
    if key is not None and not recipe.allow_embeddings and method.telling(config):
        raise ConfigError(
            f"with these settings {method.name} changes embeddings or head, whose rows can tell "
            "which tokens were forgotten; choose others, or allow it with --allow-embeddings"
        )
    if key is not None:
        refuse_settings(config, recipe.reference, rows)
    corpus = read_corpus(recipe.corpus, start, hub)
    return Job(recipe, method, plugin, config, rows, start, target, weights, corpus, key)


def apply(
    job: Job,
    output: Path | None = None,
    *,
    force: bool = False,
    talk: Talk | None = None,
    check: Check | None = None,
) -> Applied:
    """Run a job: edit the model, store the change, and write its revision to a directory.

    Nothing appears at `output` (by default a new directory named after the base and the edit)
    before it is complete. `check` measures the model and may refuse the edit.

    Raises:
        HubEditError: the edit cannot be made; nothing is left behind.
    """
    if output is not None:
        revisions.check_output(output)
    with discreet(job.rows if job.key is not None else None, "the run"):
        return _applied(job, output, force, talk or Silent(), check)


def _applied(
    job: Job, output: Path | None, force: bool, talk: Talk, check: Check | None
) -> Applied:
    from hubedit import models

    recipe, start = job.recipe, job.start
    with threads(recipe.threads), ExitStack() as folders:
        talk.log(f"loading {start.place.title}")
        overlay, texts, presence = start.overlay(), start.texts(), start.presence()
        layout = layout_of(start.stack.base)

        def load() -> LoadedModel:
            return models.load(
                folders.enter_context(revisions.model_folder(start.base, presence)),
                dtype=recipe.dtype,
                device=device_of(recipe.device),
                layout=layout,
                overlay=overlay,
                texts=texts,
                identity=start.stack.base.digest,
            )

        model = load()
        check_architecture(model, job.method)

        tokens = disclosure.extents(job.rows, lambda text: len(model.tokens(text)[0]))
        for part, number in tokens.items():
            own = sum(row.part_name == part for row in job.rows)
            talk.log(f"part {part}: {counted(own, 'row')}, {counted(number, 'token')}")
        rows, template = job.rows, None
        if recipe.chat:
            rows = chat.through_template(job.rows, model.tokenizer)
            template = chat.template_digest(model.tokenizer)
        asked = probes.questions(rows)
        spoken = probes.for_transcripts(asked)
        probes.check_readable(model, asked)
        with talk.progress("questions before", total=None):
            if check is not None:
                check.start(model)
            before = probes.ask(model, asked)
            said = model.generate([question.prompt for question in spoken], probes.TOKENS_WRITTEN)

        run = run_method(model, replace(job, rows=rows), force, talk)
        with _blamed(job, MethodError, NonFiniteUpdateError):
            changes = model.changes()
        digests = start.file_digests()
        written = {path: text.encode() for path, text in model.written.items()}
        if job.key is not None and not recipe.allow_embeddings:
            refuse_telltales(model, changes)
        with _blamed(job, DeltaError):
            encoded = encode(
                changes,
                model.start,
                presence=model.moves(),
                meta={"base": start.stack.base.digest, "parent": start.stack.result},
                aliases={name: model.aliases(name) for name in changes},
                files=[TextFile(path, digests.get(path), new) for path, new in written.items()],
            )
        for choice in encoded.choices:
            talk.log(f"{choice.name}: {choice.kind} ({choice.reason})")

        gone = encoded.delta.dropped()
        overlay = {**overlay, **encoded.after}
        overlay = {name: tensor for name, tensor in overlay.items() if name not in gone}
        texts |= {path: file.content for path, file in encoded.delta.files.items()}
        if gone or encoded.delta.added():
            presence = presence.after(encoded.delta)
            model = load()
        else:
            model.restore()
            for name, after in encoded.after.items():
                model.set_tensor(name, after)
            if encoded.delta.files:
                models.read_again(model, texts)
        asks = asked
        if encoded.delta.files and recipe.chat:
            asks = probes.questions(chat.through_template(job.rows, model.tokenizer))
        with talk.progress("questions after", total=None):
            found = probes.pair(asked, before, probes.ask(model, asks))
            heard = probes.for_transcripts(asks)
            says = model.generate([question.prompt for question in heard], probes.TOKENS_WRITTEN)
            if check is not None:
                run.record("canary", check.end(model, overlay))

        manifest = recording.manifest(
            job.recipe, job.method, job.plugin, job.config, start, run, encoded, model
        )
        asked_for = disclosure.request_record(job.rows, job.key, template)
        manifest = manifest.model_copy(
            update={
                "request": asked_for.model_copy(update={"tokens": tokens}),
                "scores": probes.scores(found),
                "transcripts": probes.transcripts(spoken, said, says),
                "not_tested": probes.not_tested(job.rows, found),
            }
        )
    if job.key is not None:
        found = disclosure.redacted(found)
        hidden = ("a guard was overruled; its words could quote the request",)
        manifest = manifest.model_copy(
            update={
                "transcripts": (),
                "figures": (),
                "overruled": hidden * len(manifest.overruled),
            }
        )
    output = output or Path(f"{base_name(start)}-{manifest.edit}")
    files = recording.folder(manifest, found, encoded.delta) | keeping.files_of(run.kept)
    if job.key is not None:
        everything = {**files, "manifest.json": manifest.to_json().encode()}
        with _blamed(job, OutputError):
            disclosure.refuse_leaks(everything, job.rows, said_of_any(manifest, found))
    repo = job.target.repo if job.target else recipe.to
    same = output.name.endswith(manifest.edit)
    with revisions.finished_directory(output, replace=same) as work:
        if job.weights:
            talk.log("writing the edited weights")
            revisions.write_weights(work, start.base, overlay, texts, presence)
        revisions.add_edit(work, start, manifest, files, weights=job.weights, repo=repo)
    if job.key is not None:
        kept = disclosure.keep_key(manifest.edit, manifest.result, job.key)
        talk.log(f"the key that proves what was forgotten is kept in {kept}")
    return Applied(output, manifest, found)


def publish(
    applied: Applied, hub: Hub, to: str | None, *, direct: bool = False, force: bool = False
) -> tuple[PushPlan, Pushed]:
    """Push a finished edit: one commit, as a pull request unless `direct`."""
    plan = publishing.plan_push(applied.directory, hub, to, direct=direct, force=force)
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
    with revisions.model_folder(edition.base, edition.presence()) as folder:
        return models.load_for_use(folder, overlay=overlay, dtype=dtype, texts=edition.texts())


# -- the steps ----------------------------------------------------------------------------------


def read_rows(recipe: Recipe, method: type[Method[Any, Any]], hub: OpenHub) -> Sequence[Row]:
    """Read the request as rows of the type that the method takes.

    Raises:
        RequestError: it cannot be read, is empty, a row is not usable, or parts overlap.
    """
    kind, reader = method.row_type(), recipe.reader
    if isinstance(recipe.request, tuple):
        rows = rows_of(kind, recipe.request, reader=reader)
    else:
        rows = gathered(kind, recipe.request, hub, reader)
    refuse_overlap(rows)
    return rows


def check_architecture(model: LoadedModel, method: type[Method[Any, Any]]) -> None:
    """Raise UnsupportedModelError for a kind of model that the method does not edit."""
    if model.layout.architecture not in method.architectures:
        raise UnsupportedModelError(
            f"method {method.name!r} edits {', '.join(sorted(method.architectures))} "
            "models, and this is a "
            f"{model.layout.architecture} one ({model.layout.model_type}); `hubedit "
            "methods` lists the others"
        )


def run_method(model: LoadedModel, job: Job, force: bool, talk: Talk) -> Run:
    """Let the method change the model, with everything random seeded."""
    import torch

    generator = torch.Generator().manual_seed(job.recipe.seed)
    store = ArtifactStore(elsewhere=lookup(job.start.hub))
    store.sweep()
    hidden = None if job.key is None else job.rows
    if hidden is not None:
        talk = Discreet(talk, Quotations(hidden))
    run = Run(generator, job.recipe.seed, job.corpus, force, talk, store)
    run.disclosed, run.earlier = job.key is None, job.earlier or ()
    if job.earlier is None:
        run.earlier = keeping.earlier(job.start, job.method, model.tokenizer)
    what = f"method {job.method.name!r} of plugin {job.plugin.name!r}"
    with torch.random.fork_rng(devices=[]), discreet(hidden, what):
        torch.manual_seed(job.recipe.seed)
        try:
            with _blamed(job, DeltaError):
                job.method().apply(model, job.rows, job.config, run)
        except HubEditError:
            raise
        except Exception as error:
            said = brief(error, job.method.__module__) if job.key is None else type(error).__name__
            raise PluginError(f"{what} failed: {said}; HUBEDIT_DEBUG=1 shows where") from error
    return run


@contextmanager
def _blamed(job: Job, *kinds: type[HubEditError]) -> Iterator[None]:
    """Name the method, its plugin and its place in errors of some kinds, which are its doing."""
    try:
        yield
    except kinds as error:
        where = f"method {job.method.name!r} of plugin {job.plugin.name!r}"
        raise type(error)(f"{where}: {error} ({place_of(job.method)})") from error


def base_name(start: Edition) -> str:
    """The last part of the name of what an edition edits."""
    base = start.stack.base
    return (base.repo or base.directory or "model").rpartition("/")[2]
