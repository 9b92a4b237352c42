"""The difference of two checkpoints as an edit: a delta, its records and its card."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hubedit
from hubedit import __version__
from hubedit.choosing import Choice, TensorChange, choose
from hubedit.choosing import compare as describe
from hubedit.choosing import presence as describe_presence
from hubedit.comparison import Side
from hubedit.delta import Target, TextFile
from hubedit.diff import render_diff, write_heatmap
from hubedit.editions import Edition, edition_at
from hubedit.errors import DeltaError, EmptyDeltaError
from hubedit.heatmap import place_of
from hubedit.hub import Hub
from hubedit.manifest import (
    BaseRecord,
    DeltaRecord,
    EnvironmentRecord,
    FileChange,
    Manifest,
    MethodRecord,
    PluginRecord,
    RequestRecord,
    Stack,
    TensorRecord,
    files_digest,
    pretty_json,
    result_digest,
    touched_tensors,
    written_files,
)
from hubedit.origins import files_sha256
from hubedit.places import base_record, model_file_names
from hubedit.revisions import add_edit, check_output, finished_directory
from hubedit.spooling import DeltaWriter
from hubedit.stored import StoredTensor
from hubedit.texts import TEXT_FILES
from hubedit.updates import Add, Drop, Update

METHOD = MethodRecord(
    name="checkpoint",
    kind="edit",
    assurance="exact",
    summary="Take the weights of another checkpoint, bit for bit.",
    limits=(
        "What the other checkpoint was made for, and what it knows, is not examined.",
        "Files that no edit may write, such as config and tokenizer, stay those of the base.",
    ),
)
_DELTA = "delta.safetensors"
Step = tuple[Choice, TensorChange, Update]


@dataclass(frozen=True)
class Made:
    """What a difference came to: what was chosen for each tensor that differs, and its file.

    `left` are the files of the two models that differ and stay those of the base.
    """

    choices: tuple[Choice, ...]
    changes: tuple[TensorChange, ...]
    files: tuple[str, ...]
    left: tuple[str, ...]
    nbytes: int
    checkpoint_nbytes: int
    manifest: Manifest
    directory: Path | None

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "edit": self.manifest.edit,
            "result": self.manifest.result,
            "output": str(self.directory) if self.directory else None,
            "delta_bytes": self.nbytes,
            "checkpoint_bytes": self.checkpoint_nbytes,
            "tensors": [vars(choice) for choice in self.choices],
            "files": list(self.files),
            "files_as_in_base": list(self.left),
        }


def make_delta(
    a: str,
    b: str,
    hub: Callable[[], Hub],
    output: Path | None,
    *,
    base: str | None = None,
    said: Callable[[Choice], None] = lambda _: None,
) -> Made:
    """Write what makes `b` of `a` as an edit of `a`; one pair of tensors is in memory at a time.

    Args:
        a: a directory or `REPO[@REV]`; of an edit repository the stack is extended.
        b: another; its tensors have the shapes and dtypes of `a`, or come, or go.
        hub: opens the Hub when it is needed.
        output: the directory to write, or None to write nothing.
        base: a directory or repository to take the base of edits from.
        said: told of each tensor as it is done.

    Raises:
        DeltaError: a tensor has another dtype or shape, or would become NaN or infinite.
        EmptyDeltaError: nothing differs.
        OutputError: `output` holds something.
    """
    one, other = Side.open(a, hub, base), Side.open(b, hub, base)
    _refuse_misfits(one, other)
    if output is not None:
        check_output(output)
        with finished_directory(output) as work:
            return _made(one, other, work, output, said)
    with tempfile.TemporaryDirectory(prefix="hubedit-delta-") as scratch:
        return _made(one, other, Path(scratch), None, said)


def _made(
    one: Side, other: Side, work: Path, output: Path | None, said: Callable[[Choice], None]
) -> Made:
    start = one.edition or edition_at(one.place, one.hub)
    texts, left = _texts(start, other)
    meta = {"base": start.stack.base.digest, "parent": start.stack.result}
    steps: list[tuple[Choice, TensorChange]] = []
    with DeltaWriter(work / _DELTA, meta) as writer:
        for choice, change, update in _steps(one, other):
            said(choice)
            target = Target(change.dtype, change.shape, change.sha256_before, change.sha256_after)
            writer.add(change.name, update, target)
            steps.append((choice, change))
        for text in texts:
            writer.add_text(text)
        if not steps and not texts:
            raise EmptyDeltaError(
                f"{other.place.title} has the tensors and files of {one.place.title}, so there is "
                "nothing to store"
            )
        nbytes, sha256 = writer.finish()
    choices = tuple(choice for choice, _ in steps)
    changes = tuple(change for _, change in steps)
    manifest = _manifest(
        start, other, steps, texts, left, DeltaRecord(nbytes=nbytes, sha256=sha256)
    )
    if output is not None:
        folder = work / "edits" / manifest.edit
        folder.mkdir(parents=True)
        (work / _DELTA).replace(folder / _DELTA)
        add_edit(work, start, manifest, _folder(manifest, texts), weights=False)
    return Made(
        choices,
        changes,
        tuple(text.path for text in texts),
        left,
        nbytes,
        sum(file.size for file in start.stack.base.files if file.path.endswith(".safetensors")),
        manifest,
        output,
    )


def _refuse_misfits(one: Side, other: Side) -> None:
    """Refuse tensors that both have and that cannot become one another."""
    for name in sorted({*one.present} & {*other.present}):
        mine, theirs = one.present[name], other.present[name]
        if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
            raise DeltaError(
                f"{name} is {mine.dtype} {list(mine.shape)} in {one.place.title} and "
                f"{theirs.dtype} {list(theirs.shape)} in {other.place.title}; a delta needs two "
                "checkpoints of one shape and dtype: save one as the other is"
            )


def _steps(one: Side, other: Side) -> Iterator[Step]:
    """What is chosen for each tensor that differs, by name."""
    for name in sorted({*one.present, *other.present}):
        if name in one.present and name in other.present:
            if not _vouched(name, one, other):
                yield from _changed(name, one.read(name), other.read(name))
            continue
        before = one.read(name) if name in one.present else None
        update: Add | Drop = Add(other.read(name)) if before is None else Drop()
        change = describe_presence(name, update, before)
        where = "there is none before" if before is None else "there is none after"
        yield Choice(name, update.kind, change.nbytes, where), change, update


def _changed(name: str, before: StoredTensor, after: StoredTensor) -> Iterator[Step]:
    if before == after:
        return
    try:
        update, made, reason = choose(after, before)
    except DeltaError as error:
        raise type(error)(f"{name}: {error}") from error
    if update is None or made != after:
        raise DeltaError(f"{name}: its difference cannot be stored")
    change = describe(name, before, after, update)
    yield Choice(name, update.kind, change.nbytes, reason), change, update


def _vouched(name: str, one: Side, other: Side) -> bool:
    """Whether both sides have a tensor in files that the Hub says are the same."""
    if name in one.touched or name in other.touched:
        return False
    mine, theirs = one.stored.tensors.get(name), other.stored.tensors.get(name)
    if mine is None or theirs is None:
        return False
    known = one.base.files()[mine.file].sha256
    return known is not None and known == other.base.files()[theirs.file].sha256


def _texts(start: Edition, other: Side) -> tuple[tuple[TextFile, ...], tuple[str, ...]]:
    """The small files that an edit may write and that differ, and the other files that differ."""
    base, mine = other.base, start.file_digests()
    written = other.edition.texts() if other.edition else {}
    names = [name for name in model_file_names(base) if not name.startswith("model.safetensors")]
    names = [name for name in names if not name.endswith(".safetensors")]
    found, left = [], []
    for name in sorted({*names, *written}):
        content = written.get(name) or base.read(name)
        if hashlib.sha256(content).hexdigest() == mine.get(name):
            continue
        try:
            if name in TEXT_FILES:
                found.append(TextFile(name, mine.get(name), content))
                continue
        except DeltaError:
            pass  # a file that no edit may write, by its content
        left.append(name)
    return tuple(found), tuple(left)


def _manifest(
    start: Edition,
    other: Side,
    steps: list[tuple[Choice, TensorChange]],
    texts: tuple[TextFile, ...],
    left: tuple[str, ...],
    delta: DeltaRecord,
) -> Manifest:
    stack = start.stack
    height = stack.height + 1
    draft = Manifest(
        edit=f"{height:04d}-{METHOD.name}-{delta.sha256[:8]}",
        height=height,
        base=stack.base,
        parent=stack.result,
        result=stack.result,
        method=METHOD,
        plugin=PluginRecord(
            name="hubedit",
            distribution="hubedit",
            version=__version__,
            sha256=files_sha256(hubedit),
        ),
        config={},
        request=_request(other),
        seed=0,
        environment=_environment(),
        record={"files_as_in_base": list(left)} if left else {},
        tensors=tuple(_tensor(choice, change, stack) for choice, change in steps),
        files=tuple(
            FileChange(path=text.path, before=text.before, after=text.after) for text in texts
        ),
        delta=delta,
        not_tested=("No question was asked: the weights alone were compared.",),
    )
    every = [*start.manifests, draft]
    result = result_digest(stack.base.files, touched_tensors(every), written_files(every))
    return draft.model_copy(update={"result": result})


def _tensor(choice: Choice, change: TensorChange, stack: Stack) -> TensorRecord:
    module, layer = place_of(stack.base.model_type, change.name) or ("other", None)
    return TensorRecord(
        name=change.name,
        dtype=change.dtype,
        shape=change.shape,
        before=change.sha256_before,
        after=change.sha256_after,
        kind=change.kind,
        reason=choice.reason,
        rank=change.rank,
        elements_changed=change.elements_changed,
        elements_total=change.elements_total,
        relative_norm=change.relative_norm,
        nbytes=change.nbytes,
        layer=layer,
        module=module,
    )


def _request(other: Side) -> RequestRecord:
    """What was asked: the weights of another checkpoint, named by where it lies and its content."""
    if other.edition:
        named, digest = other.place.title, other.edition.stack.result
    else:
        record: BaseRecord = base_record(other.place)
        named, digest = record.title, files_digest(record.files)
    row = {"checkpoint": named, "digest": digest}
    return RequestRecord(
        type="checkpoint",
        count=1,
        sha256=hashlib.sha256(pretty_json([row]).encode()).hexdigest(),
        rows=(row,),
        in_words=(f"the weights of {named}",),
    )


def _environment() -> EnvironmentRecord:
    return EnvironmentRecord(
        hubedit=__version__,
        python=platform.python_version(),
        torch=version("torch"),
        transformers=version("transformers"),
        numpy=version("numpy"),
        threads=1,
        machine=f"{platform.system()} {platform.machine()}",
        device="cpu",
        dtype="as stored",
    )


def _folder(manifest: Manifest, texts: tuple[TextFile, ...]) -> Mapping[str, bytes]:
    """The files of the edit's folder beside its manifest and its delta."""
    layers = manifest.base.layers
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch, "heatmap.png")
        write_heatmap(manifest, picture, layers=layers)
        drawn = picture.read_bytes()
    return {
        **{f"files/{text.path}": text.content for text in texts},
        "probes.jsonl": b"",
        "DIFF.md": render_diff(manifest, [], layers=layers).encode(),
        "heatmap.png": drawn,
    }
