"""Where a delta came from: the manifest of one edit, and the stack of a repository."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hubedit.descendants import Descendants
from hubedit.errors import ManifestError
from hubedit.headers import canonical_json, strict_json
from hubedit.matrices import MapRecord
from hubedit.measured import Forgetting
from hubedit.recipe import Reference
from hubedit.rows import first_problem

FORMAT = 1
MAX_JSON = 1 << 26
"""Bytes of a manifest or stack; no honest one comes near."""

STACK_FILE = "hubedit.json"
CARD_FILE = "README.md"
UNLISTED = frozenset({STACK_FILE, ".gitattributes"})
"""Files of a revision that the stack cannot list: itself, and what the Hub writes."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Touched = tuple[Sha256 | None, Sha256 | None]
"""Digests of a tensor in the base and on top; None where there is no such tensor."""
EDIT_NAME = r"^\d{4}-[a-z][a-z0-9-]*-[0-9a-f]{8}$"
SAFE_PATH = r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*(/[^/\\\x00-\x1f.][^/\\\x00-\x1f]*)*$"
"""A relative path with `/` in which no part is empty or starts with a dot."""


class Record(BaseModel):
    """A part of a manifest: frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """One file by its content; `path` is relative, with `/`."""

    path: str = Field(pattern=SAFE_PATH)
    size: int = Field(ge=0)
    sha256: Sha256


class BaseRecord(Record):
    """The model everything starts from: a Hub repository at an exact commit, or a local directory.

    `files` are its model files (weights, config, tokenizer); `digest` is the SHA-256 of their list,
    so that a repository and a directory with the same files have the same digest.
    """

    repo: str | None = None
    commit: str | None = None
    directory: str | None = None
    digest: Sha256
    files: tuple[FileRecord, ...]
    license: str | None = None
    model_type: str
    parameters: int
    tensors: int
    layers: int | None = None
    gated: bool = False

    @property
    def title(self) -> str:
        """`repo@commit`, or the name of the directory."""
        if self.repo:
            return f"{self.repo}@{self.commit}"
        return f"{self.directory} (local, {self.digest[:12]})"


class MethodRecord(Record):
    """The method that made an edit."""

    name: str
    kind: Literal["edit", "unlearn"]
    assurance: Literal["exact", "certified", "approximate", "guardrail"]
    summary: str
    paper: str = ""
    limits: tuple[str, ...] = ()


class PluginRecord(Record):
    """The installed distribution the method came from; `sha256` is over its installed files."""

    name: str
    distribution: str
    version: str
    origin: str = ""
    """Where it was installed from: `index`, a URL, `local directory`; empty if unknown."""
    sha256: Sha256


class RequestRecord(Record):
    """What was asked: its rows in the clear, or only their number and digest."""

    type: str
    count: int
    parts: dict[str, int] = {}
    """Number of rows by part, such as forget and retain."""
    tokens: dict[str, int] = {}
    """Number of tokens by part, of what is to be forgotten or kept."""
    sha256: Sha256
    """Of all rows: SHA-256 if disclosed, else HMAC-SHA-256 with the edit's key."""
    disclosed: bool = True
    chat: Sha256 | None = None
    """SHA-256 of the chat template that prompts were written through, if they were."""
    hashes: tuple[Sha256, ...] = ()
    """If not disclosed: HMAC-SHA-256 of each row that is to be forgotten, sorted."""
    rows: tuple[dict[str, Any], ...] | None = None
    in_words: tuple[str, ...] = ()


class EnvironmentRecord(Record):
    """What the run ran on: training is reproducible only on the same."""

    hubedit: str
    python: str
    torch: str
    transformers: str
    numpy: str
    threads: int
    machine: str
    device: str
    dtype: str


class TensorRecord(Record):
    """One stored tensor that changed, came or went; digests are `StoredTensor.sha256`."""

    name: str
    aliases: tuple[str, ...] = ()
    dtype: str
    shape: tuple[int, ...]
    before: Sha256 | None
    """None of a tensor that came."""
    after: Sha256 | None
    """None of one that went."""
    kind: str
    reason: str
    rank: int | None = None
    elements_changed: int
    elements_total: int
    relative_norm: float | None = None
    nbytes: int
    layer: int | None = None
    module: str


class FileChange(Record):
    """One small text file of the model that an edit wrote, by its content before and after."""

    path: str = Field(pattern=SAFE_PATH)
    before: Sha256 | None
    """None where there was no such file."""
    after: Sha256


class DeltaRecord(Record):
    """The delta file of an edit."""

    file: Literal["delta.safetensors"] = "delta.safetensors"
    nbytes: int
    sha256: Sha256


class ScoreRecord(Record):
    """A share of probes, in [0, 1], before and after, over `n` probes.

    `group` is rewrite, paraphrase, neighbour or attribute; `metric` is `target` (the greedy answer
    is the target) or `unchanged` (the greedy answer is the one before the edit).
    """

    group: str
    metric: str
    before: float | None
    after: float
    n: int


class TranscriptRecord(Record):
    """What the model wrote greedily after a prompt, before and after the edit."""

    prompt: str
    before: str
    after: str


class ReplayRecord(Record):
    """Where an edit was made that now lies on another start, put there from its recorded updates.

    `edit` and `parent` are its name and its start's result digest there; `tensors` are those that
    have other bits here, and `asked` says whether its questions were asked again here.
    """

    edit: str = Field(pattern=EDIT_NAME)
    parent: Sha256
    tensors: tuple[str, ...] = ()
    asked: bool = False


class Manifest(Record):
    """Everything about one edit: what was asked, what was done, and what came out."""

    format: Literal[1] = 1
    edit: str = Field(pattern=EDIT_NAME)
    height: int = Field(ge=1)
    base: BaseRecord
    parent: Sha256
    """Result digest of the state the edit started from."""
    result: Sha256
    """Result digest of the state after it."""
    method: MethodRecord
    plugin: PluginRecord
    config: dict[str, Any]
    request: RequestRecord
    seed: int
    environment: EnvironmentRecord
    record: dict[str, Any] = {}
    overruled: tuple[str, ...] = ()
    tensors: tuple[TensorRecord, ...]
    files: tuple[FileChange, ...] = ()
    delta: DeltaRecord
    scores: tuple[ScoreRecord, ...] = ()
    transcripts: tuple[TranscriptRecord, ...] = ()
    figures: tuple[MapRecord, ...] = ()
    not_tested: tuple[str, ...] = ()
    replayed: ReplayRecord | None = None
    reference: Reference | None = None
    """Where the request comes from, as who made the edit said."""
    forgetting: Forgetting | None = None
    """How far the request is forgotten, where that was measured and written here."""

    def to_json(self) -> str:
        """The file's text: sorted, indented, one newline at the end."""
        return pretty_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a manifest.

        Raises:
            ManifestError: it is damaged, or of a format this version does not know.
        """
        return _read(cls, text, "manifest.json")

    @property
    def summary(self) -> str:
        """What was asked, in one line."""
        return "; ".join(self.request.in_words[:3]) or f"{self.request.count} rows"


class StackEntry(Record):
    """One edit in the stack, bottom first."""

    name: str = Field(pattern=EDIT_NAME)
    method: str
    kind: Literal["edit", "unlearn"]
    summary: str
    delta: Sha256
    manifest: Sha256
    parent: Sha256
    result: Sha256

    @property
    def folder(self) -> str:
        """Where the edit lies in the repository."""
        return f"edits/{self.name}"


class Stack(Record):
    """`hubedit.json`: the base, the edits in order, and every file of the revision by its content.

    README.md is listed by the digest of its text without what people wrote between the markers;
    hubedit.json itself and .gitattributes are not listed.
    """

    format: Literal[1] = 1
    rule: str = "A reader refuses a format it does not know; hubedit 0.1 and newer read format 1."
    base: BaseRecord
    version: int = 0
    """Counts the revisions that were published, reverts included; tags are named after it."""
    previous: Sha256 | None = None
    """SHA-256 of the hubedit.json that this one follows: a chain over the revisions."""
    edits: tuple[StackEntry, ...]
    weights: bool = False
    """Whether the revision also holds the edited weights."""
    files: dict[str, Sha256] = {}
    descendants: Descendants | None = Field(default=None, exclude_if=lambda found: found is None)
    """What the Hub listed as made from the base when an edit that forgets was pushed."""

    @property
    def height(self) -> int:
        """Number of edits."""
        return len(self.edits)

    @property
    def result(self) -> Sha256:
        """Result digest of the top of the stack."""
        return self.edits[-1].result if self.edits else result_digest(self.base.files, {})

    def to_json(self) -> str:
        """The file's text: sorted, indented, one newline at the end."""
        return pretty_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Stack:
        """Read a stack.

        Raises:
            ManifestError: it is damaged, or of a format this version does not know.
        """
        return _read(cls, text, STACK_FILE)


_RecordT = TypeVar("_RecordT", bound=Record)


def pretty_json(value: Any) -> str:
    """Sorted, indented JSON that reads well in a diff."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read(kind: type[_RecordT], text: str | bytes, name: str) -> _RecordT:
    if len(text) > MAX_JSON:
        raise ManifestError(f"{name} has more than {MAX_JSON} bytes; it is damaged")
    try:
        value = strict_json(text if isinstance(text, bytes) else text.encode("utf-8"))
        canonical_json(value)  # escapes can smuggle in text that is not Unicode
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{name} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{name} is not a JSON object; it is damaged")
    if value.get("format") != FORMAT:
        raise ManifestError(
            f"{name} has format {value.get('format')!r} and this hubedit reads format {FORMAT}; "
            "a newer hubedit may know it: pip install -U hubedit"
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ManifestError(f"{name} is damaged: {first_problem(error)}") from error


def files_digest(files: Iterable[FileRecord]) -> Sha256:
    """SHA-256 (hex) of a list of files: canonical JSON of [[path, sha256], …], sorted by path."""
    return _digest(sorted([file.path, file.sha256] for file in files))


def result_digest(
    base_files: Iterable[FileRecord],
    touched: Mapping[str, Touched],
    written: Mapping[str, Sha256] | None = None,
) -> Sha256:
    """The identity of an edited model: its base's files, and each touched tensor.

    Args:
        base_files: the files of the base.
        touched: digests of tensors in the base and now, by stored name.
        written: digests of the small files that edits wrote, by path; they take the place of the
            base's.

    SHA-256 (hex) of canonical JSON of
    `{"files": [[path, sha256], …], "tensors": [[name, before, after], …]}`, both sorted; `before`
    is the tensor's digest in the base, and tensors that are as in the base are left out.
    """
    tensors = sorted(
        [name, before, after] for name, (before, after) in touched.items() if before != after
    )
    files = {file.path: file.sha256 for file in base_files} | dict(written or {})
    return _digest({"files": sorted(map(list, files.items())), "tensors": tensors})


def touched_tensors(manifests: Iterable[Manifest]) -> dict[str, Touched]:
    """For each tensor that the edits touched, in order: its digest in the base, and on top."""
    touched: dict[str, Touched] = {}
    for manifest in manifests:
        for tensor in manifest.tensors:
            base = touched[tensor.name][0] if tensor.name in touched else tensor.before
            touched[tensor.name] = (base, tensor.after)
    return touched


def written_files(manifests: Iterable[Manifest]) -> dict[str, Sha256]:
    """For each small file that the edits wrote, in order: the digest of its content on top."""
    return {file.path: file.after for manifest in manifests for file in manifest.files}


def _digest(value: Any) -> Sha256:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
