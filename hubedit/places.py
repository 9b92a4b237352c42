"""Where a revision lies: a directory, or a Hub repository at a commit; both are read alike."""

from __future__ import annotations

import fnmatch
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from hubedit.artifacts import cache_home
from hubedit.errors import NotOnHubError, RecipeError, UnsupportedModelError
from hubedit.hub import Hub, RepoFile, split_revision
from hubedit.manifest import BaseRecord, FileRecord, files_digest
from hubedit.shards import Checkpoint, sha256_files

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""What a model is made of beside its weights: files at the top of its repository."""
CORPUS_FILE = "corpus.txt"


class Place(Protocol):
    """A revision whose files can be listed and read."""

    title: str

    def files(self) -> Mapping[str, RepoFile]:
        """Every file by its path."""

    def read(self, path: str) -> bytes:
        """One file, whole."""

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of one file."""

    def local(self, paths: Iterable[str]) -> Path:
        """A directory that holds these files under their paths."""

    def sha256(self, paths: Iterable[str]) -> dict[str, str]:
        """Digests (hex) of files; nothing is read whose digest the Hub already vouches for."""


class LocalPlace:
    """A directory on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.title = str(directory)

    @cached_property
    def _files(self) -> dict[str, RepoFile]:
        found = {}
        for folder, folders, names in os.walk(self.directory):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") or not path.is_file():
                    continue
                relative = path.relative_to(self.directory).as_posix()
                found[relative] = RepoFile(relative, path.stat().st_size, None)
        return found

    def files(self) -> Mapping[str, RepoFile]:
        """Every file by its path, hidden ones left out."""
        return self._files

    def _path(self, path: str) -> Path:
        if path not in self._files:
            raise NotOnHubError(f"{self.title} has no file {path}")
        return self.directory / path

    def read(self, path: str) -> bytes:
        """One file, whole."""
        return self._path(path).read_bytes()

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of one file."""
        with self._path(path).open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def local(self, paths: Iterable[str]) -> Path:
        """The directory itself."""
        for path in paths:
            self._path(path)
        return self.directory

    def sha256(self, paths: Iterable[str]) -> dict[str, str]:
        """Digests of files, hashed in parallel and remembered while the files do not change."""
        wanted = {path: self._path(path) for path in paths}
        by_file = sha256_files(list(wanted.values()), cache=cache_home() / "digests.json")
        return {path: by_file[file] for path, file in wanted.items()}


class HubPlace:
    """A Hub repository at an exact commit."""

    def __init__(self, hub: Hub, repo: str, commit: str) -> None:
        self.hub, self.repo, self.commit = hub, repo, commit
        self.title = f"{repo}@{commit}"

    @cached_property
    def _files(self) -> dict[str, RepoFile]:
        return self.hub.files(self.repo, self.commit)

    def files(self) -> Mapping[str, RepoFile]:
        """Every file by its path."""
        return self._files

    def _known(self, path: str) -> str:
        if path not in self._files:
            raise NotOnHubError(f"{self.title} has no file {path}")
        return path

    def read(self, path: str) -> bytes:
        """One file, whole."""
        return self.hub.read(self.repo, self.commit, self._known(path))

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of one file, by a range request."""
        return self.hub.read_range(self.repo, self.commit, self._known(path), begin, end)

    def local(self, paths: Iterable[str]) -> Path:
        """The directory of the client's cache that holds these files."""
        return self.hub.pull(self.repo, self.commit, [self._known(path) for path in paths])

    def sha256(self, paths: Iterable[str]) -> dict[str, str]:
        """Digests of files: LFS ones as the Hub names them, the small others by reading them."""
        wanted = list(paths)
        unknown = [path for path in wanted if self._files[self._known(path)].sha256 is None]
        digests = {path: self._files[path].sha256 or "" for path in wanted}
        if unknown:
            folder = self.local(unknown)
            by_file = sha256_files([folder / path for path in unknown])
            digests |= {path: by_file[folder / path] for path in unknown}
        return digests


class PlaceSource:
    """The bytes of a place's files, as `shards.Checkpoint` reads them."""

    def __init__(self, place: Place, names: Iterable[str]) -> None:
        self._place, self._names = place, list(names)

    def files(self) -> Mapping[str, int]:
        """Sizes by path."""
        known = self._place.files()
        return {name: known[name].size for name in self._names}

    def read(self, file: str, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of one file."""
        return self._place.read_range(file, begin, end)


def open_place(text: str, hub: Callable[[], Hub]) -> Place:
    """Open `DIR` or `REPO[@REV]`; the revision is resolved to a commit at once.

    Raises:
        RecipeError: it is neither.
        NotOnHubError: the Hub has no such repository or revision.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return LocalPlace(path)
    if text.startswith((".", "/", "~")) or text.partition("@")[0].count("/") > 1:
        raise RecipeError(
            f"there is no directory {text}; give one, or a repository such as owner/name"
        )
    repo, revision = split_revision(text)
    client = hub()
    return HubPlace(client, repo, client.commit(repo, revision))


def model_files(names: Iterable[str], index: Mapping[str, Any] | None) -> list[str]:
    """The files a model is made of, among the names at the top of its repository.

    Args:
        names: paths of the files.
        index: the parsed `model.safetensors.index.json`, if there is one.
    """
    wanted = set()
    shards = set(index.get("weight_map", {}).values()) if index else set()
    for name in names:
        if "/" in name:
            continue
        is_weights = name in shards or name == WEIGHTS_INDEX if index else name == WEIGHTS
        if is_weights or any(fnmatch.fnmatch(name, pattern) for pattern in MODEL_FILES):
            wanted.add(name)
    return sorted(wanted)


def read_index(content: bytes, where: str) -> Mapping[str, Any]:
    """Parse a `model.safetensors.index.json`.

    Raises:
        UnsupportedModelError: it is not JSON with a weight_map.
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise UnsupportedModelError(f"{WEIGHTS_INDEX} of {where} is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("weight_map"), dict):
        raise UnsupportedModelError(f"{WEIGHTS_INDEX} of {where} has no weight_map")
    return value


def model_file_names(place: Place) -> list[str]:
    """The files of a place that make up its model: weights, config, tokenizer."""
    names = place.files()
    sharded = WEIGHTS_INDEX in names and WEIGHTS not in names
    index = read_index(place.read(WEIGHTS_INDEX), place.title) if sharded else None
    return model_files(names, index)


def checkpoint(place: Place) -> Checkpoint:
    """The stored tensors of a place's model, read by ranges."""
    names = model_file_names(place)
    if not any(name.endswith(".safetensors") for name in names):
        names = [name for name in place.files() if "/" not in name]  # whatever is there instead
    return Checkpoint.open(PlaceSource(place, names))


def base_record(place: Place) -> BaseRecord:
    """Name a base by what it is made of.

    Raises:
        UnsupportedModelError: it holds no model that could be edited.
    """
    names = model_file_names(place)
    if "config.json" not in names:
        raise UnsupportedModelError(
            f"{place.title} has no config.json, so it is not a transformers model"
        )
    config = json.loads(place.read("config.json"))
    tensors = checkpoint(place).tensors
    digests = place.sha256(names)
    listed = place.files()
    files = tuple(
        FileRecord(path=name, size=listed[name].size, sha256=digests[name]) for name in names
    )
    record = BaseRecord(
        digest=files_digest(files),
        files=files,
        model_type=str(config.get("model_type", "unknown")),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        tensors=len(tensors),
        layers=depth_of(config),
    )
    if isinstance(place, HubPlace):
        known, gated = place.hub.describe(place.repo, place.commit)
        where = {"repo": place.repo, "commit": place.commit, "license": known, "gated": gated}
        return record.model_copy(update=where)
    directory = Path(place.title).absolute()
    remember_base(record.digest, directory)
    return record.model_copy(update={"directory": directory.name, "license": _card_license(place)})


def depth_of(config: Mapping[str, Any]) -> int | None:
    """Number of blocks, however the family calls it."""
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return None


def open_base(record: BaseRecord, hub: Callable[[], Hub], given: str | None = None) -> Place:
    """Find the base that a record names.

    Args:
        record: what the manifest says.
        hub: opens the Hub when the base is there.
        given: a directory or repository to use instead of where the record points.

    Raises:
        NotOnHubError: it cannot be found; says how to name it.
    """
    if given is not None:
        return open_place(given, hub)
    if record.repo is not None:
        client = hub()
        return HubPlace(client, record.repo, client.commit(record.repo, record.commit))
    directory = _known_bases().get(record.digest)
    if directory is None or not Path(directory).is_dir():
        raise NotOnHubError(
            f"the base is a local directory ({record.directory}) that this machine does not know; "
            "give it with --base DIR"
        )
    return LocalPlace(Path(directory))


def remember_base(digest: str, directory: Path) -> None:
    """Note where a local base lies, so that its edits find it again."""
    known = _known_bases()
    if known.get(digest) == str(directory):
        return
    known[digest] = str(directory)
    path = cache_home() / "bases.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(known, indent=1, sort_keys=True))
    partial.replace(path)


def _known_bases() -> dict[str, str]:
    path = cache_home() / "bases.json"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _card_license(place: Place) -> str | None:
    """The licence named in the YAML header of a local README.md."""
    import yaml

    if "README.md" not in place.files():
        return None
    parts = place.read("README.md").decode("utf-8", "replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    value = header.get("license") if isinstance(header, dict) else None
    return str(value) if value else None
