"""The hooks a plugin may implement, one sentence each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

if TYPE_CHECKING:
    from hubedit.method import Method

hookspec = pluggy.HookspecMarker("hubedit")
hookimpl = pluggy.HookimplMarker("hubedit")


class Endpoint(NamedTuple):
    """A Hub to talk to.

    `home` is a cache directory of its own: the client's cache is keyed by repository id alone.
    """

    url: str
    token: str | None
    user: str
    home: Path


class SmallRequest(NamedTuple):
    """A request to forget, of a model that comes with a plugin.

    `split` is dev (for choosing settings) or test (for what is reported). `rows` gives the records,
    in the fields of `hubedit.ForgetQA` or `hubedit.ForgetText`. `oracle` is the directory of a
    model that was trained without what is to be forgotten, if there is one.
    """

    name: str
    split: str
    rows: Callable[[], Sequence[Mapping[str, Any]]]
    oracle: str | Path | None = None


class SmallModel(NamedTuple):
    """A model that comes with a plugin, and cases to score edits of it on.

    `directory` is a complete snapshot. `cases` gives the records of a split, such as dev (for
    choosing settings) or test (for what is reported), in the fields of `hubedit.FactEdit`.
    `requests` are those to forget, and `settings` what was chosen on their split dev for methods,
    by the methods' names.
    """

    name: str
    directory: Path
    splits: tuple[str, ...]
    cases: Callable[[str], Sequence[Mapping[str, Any]]]
    requests: tuple[SmallRequest, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = {}


@hookspec
def hubedit_methods() -> list[type[Method[Any, Any]]]:
    """Return the method classes that this plugin offers."""
    return []


@hookspec(firstresult=True)
def hubedit_endpoint(name: str) -> Endpoint | None:
    """Return a running Hub for `name` (`--local` asks for "local"), or None if it is not yours."""


@hookspec
def hubedit_models() -> list[SmallModel]:
    """Return the small models that this plugin ships, each with its cases by split."""
    return []
