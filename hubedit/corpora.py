"""Texts that stand for what a model was trained on: a file, a dataset, or its repository's."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hubedit.editions import Edition
from hubedit.errors import RecipeError, near_misses
from hubedit.hub import Hub
from hubedit.method import Corpus
from hubedit.requests import without_none

CORPUS_FILE = "corpus.txt"
DATASET = "hf://datasets/"


def read_corpus(named: str | None, start: Edition, hub: Callable[[], Hub]) -> Corpus | None:
    """The texts for statistics: what is named, else what the model's repository ships.

    Args:
        named: a file, or `hf://datasets/…`; None for the repository's own.
        start: the model.
        hub: opens the Hub when a dataset is read.

    Raises:
        RecipeError: texts are named that are not there.
    """
    if named is None:
        if CORPUS_FILE not in start.base.files():
            return None
        content = start.base.read(CORPUS_FILE)
        return _corpus(content, f"{CORPUS_FILE} of {start.stack.base.title}")
    if named.startswith(DATASET):
        return _dataset(named, hub())
    path = corpus_path(named)
    return _corpus(path.read_bytes(), path.name)


def corpus_path(text: str) -> Path:
    """The file of texts that a recipe names.

    Raises:
        RecipeError: there is none.
    """
    path = Path(text)
    if not path.is_file():
        raise RecipeError(
            f"the corpus {text} does not exist; give a text file or hf://datasets/owner/name"
        )
    return path


def _corpus(content: bytes, source: str) -> Corpus:
    text = content.decode("utf-8", "replace")
    pieces = text.split("\n\n") if "\n\n" in text.strip() else text.splitlines()
    texts = [" ".join(piece.split()) for piece in pieces if piece.strip()]
    return Corpus(texts, source, hashlib.sha256(content).hexdigest())


def _dataset(text: str, hub: Hub) -> Corpus:
    """The texts of a dataset as `load_dataset` names it: its column `text`, or the first of text.

    Raises:
        RecipeError: it has no such split, or no column of text.
    """
    rows, where = load_dataset(text, hub)
    columns = [
        name
        for name, kind in rows.features.items()
        if getattr(kind, "dtype", "") in ("string", "large_string")
    ]
    if not columns:
        known = ", ".join(rows.column_names)
        raise RecipeError(f"the corpus {text} has no column of text; its columns are {known}")
    column = "text" if "text" in columns else columns[0]
    texts = [" ".join(str(value).split()) for value in rows[column] if value and value.strip()]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return Corpus(texts, f"{where}, column {column}", digest)


def dataset_records(text: str, hub: Hub, *, cached: bool = False) -> list[dict[str, Any]]:
    """The rows of a dataset, as `load_dataset` names it, as records of a request.

    Args:
        text: the dataset.
        hub: where it is.
        cached: whether copies may stay in the caches of the Hub's client and of datasets. What is
            to be forgotten is read without, and so is downloaded each time.
    """
    if cached:
        return [without_none(record) for record in load_dataset(text, hub)[0]]
    with tempfile.TemporaryDirectory(prefix="hubedit-") as scratch:
        rows, _ = load_dataset(text, hub, Path(scratch))
        return [without_none(record) for record in rows]


def load_dataset(text: str, hub: Hub, scratch: Path | None = None) -> tuple[Any, str]:
    """A split of a Hub dataset from its files at an exact commit, and where it is from, in words.

    Args:
        text: `hf://datasets/owner/name[/config][@revision][#split]`. A revision may hold slashes,
            so the config stands before it. The split is `train` by default.
        hub: where the dataset is.
        scratch: a directory for all copies, in place of the usual caches.

    Raises:
        RecipeError: it cannot be read, or has no such config or split, or several configs and
            none is named.
    """
    import datasets

    place, _, split = text.removeprefix(DATASET).partition("#")
    path, _, revision = place.partition("@")
    owner, _, rest = path.partition("/")
    name, _, config = rest.partition("/")
    repo = f"{owner}/{name}" if name else owner
    commit, folder = hub.pull_dataset(repo, revision or None, scratch)
    quiet = not sys.stderr.isatty()
    if quiet:
        datasets.disable_progress_bars()
    try:
        known = datasets.get_dataset_config_names(str(folder))
        if config and config not in known:
            raise RecipeError(
                f"{repo}@{commit} has no config {config!r}; {near_misses(config, known)}"
            )
        if not config and datasets.get_dataset_default_config_name(str(folder)) is None:
            sign = f"@{revision}" if revision else ""
            raise RecipeError(
                f"{repo}@{commit} has the configs {', '.join(known)}; name one, as in "
                f"{DATASET}{repo}/{known[0]}{sign}"
            )
        rows = datasets.load_dataset(
            str(folder),
            config or None,
            split=split or "train",
            cache_dir=None if scratch is None else str(scratch / "read"),
            keep_in_memory=scratch is not None,
        )
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"{text} cannot be read: {said}") from error
    where = f"{repo}@{commit}, " + (f"config {config}, " if config else "")
    return rows, f"{where}split {split or 'train'}"
