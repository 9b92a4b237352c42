"""How a run keeps an undisclosed request to itself: in what it says, records and changes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hubedit.artifacts import canonical_json
from hubedit.context import Talk
from hubedit.diff import render_diff
from hubedit.disclosure import needles, refuse_leaks
from hubedit.errors import ConfigError, HubEditError, MethodError, OutputError
from hubedit.manifest import Manifest
from hubedit.method import Config, ProgressBar
from hubedit.probes import Probe
from hubedit.recipe import Reference
from hubedit.rows import Row

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

RUN = 3
"""So many words of a request in a row are a quotation, as is a whole field of fewer."""
LEAST = 12
"""Letters of such a run, at least; shorter ones are said by chance."""
LEAST_WORD = 4
"""Letters of a field of fewer words, at least."""
DEBUG = "HUBEDIT_DEBUG"
UNSAID = "quotes the undisclosed request, so it is not shown; HUBEDIT_DEBUG=1 shows it"

_WORD = re.compile(r"\w+")


class Quotations:
    """Tells whether a message quotes a request: in the ways of `refuse_leaks`, or in pieces.

    A piece is a run of `RUN` words, a name of two words with capitals, or a whole field of fewer
    words of the part forget, whatever stands between words and whatever their case.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    @cached_property
    def _needles(self) -> set[bytes]:
        return needles(self._rows)

    @cached_property
    def _plain(self) -> str:
        """The words of all texts in lower case, each between spaces, a text on a line."""
        texts = (_WORD.findall(text.casefold()) for row in self._rows for text in row.words())
        return "\n".join(f" {' '.join(words)} " for words in texts if len(words) >= RUN)

    @cached_property
    def _pieces(self) -> set[str]:
        return {piece for row in self._rows for piece in _pieces(row)}

    def __contains__(self, message: object) -> bool:
        text = str(message)
        words = _WORD.findall(text.casefold())
        short = (
            " ".join(words[at : at + length])
            for length in range(1, RUN)
            for at in range(len(words) - length + 1)
        )
        if any(piece in self._pieces for piece in short):
            return True
        runs = (words[at : at + RUN] for at in range(len(words) - RUN + 1))
        long = (f" {' '.join(run)} " for run in runs if sum(map(len, run)) >= LEAST)
        if any(run in self._plain for run in long):
            return True
        content = text.encode("utf-8", "replace")
        return any(needle in content for needle in self._needles)


def _pieces(row: Row) -> Iterator[str]:
    """Names, and whole fields that are shorter than a run, in lower case."""
    for text in row.words():
        words = _WORD.findall(text)
        if len(words) < RUN:
            long = sum(map(len, words)) >= LEAST_WORD
            if long and row.part_name in ("forget", "rows") and text != row.part_name:
                yield " ".join(words).casefold()
            continue
        for first, second in pairwise(words):
            if first[0].isupper() and second[0].isupper():
                yield f"{first} {second}".casefold()


class Discreet:
    """A talk that says in place of what quotes a request that it did.

    Args:
        talk: where the rest is said.
        quotations: of the request.
    """

    def __init__(self, talk: Talk, quotations: Quotations) -> None:
        self._talk, self._quotations = talk, quotations

    def log(self, message: str) -> None:
        """Say something."""
        self._talk.log(self._worded(message, f"a message of the method {UNSAID}"))

    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[ProgressBar]:
        """Show that something long goes on."""
        return self._talk.progress(self._worded(label, "working"), total)

    def _worded(self, message: str, instead: str) -> str:
        hidden = not os.environ.get(DEBUG) and message in self._quotations
        return instead if hidden else message


@contextmanager
def discreet(rows: Sequence[Row] | None, what: str) -> Iterator[None]:
    """Keep what quotes a request out of the errors that are raised here.

    Args:
        rows: the request; None of a disclosed one, whose errors stay as they are.
        what: whose errors they are, in words.

    Raises:
        HubEditError: of the same kind, in place of one that quotes the request.
    """
    try:
        yield
    except Exception as error:
        if rows is None or str(error) not in Quotations(rows):
            raise
        kinds = [one for one in type(error).__mro__ if issubclass(one, HubEditError)]
        written = [at for at, one in enumerate(kinds) if "__init__" in vars(one)]
        kind = kinds[written[-1] + 1 if written else 0] if kinds else HubEditError
        raise kind(
            f"{what} stopped with a {type(error).__name__} whose message {UNSAID}"
        ) from error


def refuse_telltales(model: LoadedModel, changes: Mapping[str, object]) -> None:
    """An undisclosed change keeps off the embeddings: their rows name tokens.

    Raises:
        MethodError: names the tensors.
    """
    telling = [
        name
        for name in changes
        if model.layout.module_of(model.parameter_of(name)) in ("embeddings", "head")
    ]
    if telling:
        raise MethodError(
            f"the method changed {', '.join(telling)}, whose rows can tell which tokens were "
            "forgotten; choose other layers, or allow it with --allow-embeddings"
        )


def refuse_settings(config: Config, reference: Reference | None, rows: Sequence[Row]) -> None:
    """Refuse, before anything is loaded, what the user gives to be published beside a request.

    Raises:
        ConfigError: a setting, or where the request comes from, holds words of the request.
    """
    named = {
        f"the setting {name}": value
        for name, value in config.model_dump(mode="json", exclude_defaults=True).items()
    }
    if reference is not None:
        named |= reference.model_dump(mode="json", exclude_none=True)
    for what, value in named.items():
        try:
            refuse_leaks({what: canonical_json(value)}, rows)
        except OutputError as error:
            raise ConfigError(
                f"{what} holds words of the undisclosed request, and the edit would publish them; "
                "say it in other words, or publish the request on purpose with --disclose full"
            ) from error


def said_of_any(manifest: Manifest, probes: Iterable[Probe]) -> dict[str, bytes]:
    """What files of an undisclosed edit say whatever was asked for, by their names.

    It is made of counts, settings, the sentences of the pages, the names of the base's own tensors
    and what the method's class says of itself: all but what the run itself put into words. A word
    of a request that stands there, such as `the model`, tells nothing.

    Args:
        manifest: of the edit.
        probes: without their words.
    """
    own = tuple(tensor for tensor in manifest.tensors if tensor.before is not None)
    empty: dict[str, Any] = {"record": {}, "figures": (), "tensors": own}
    if manifest.forgetting is not None and manifest.forgetting.oracle is not None:
        empty["forgetting"] = manifest.forgetting.model_copy(update={"oracle": ""})
    plain = manifest.model_copy(update=empty)
    shown = [probe.model_dump() for probe in probes]
    return {
        "manifest.json": plain.to_json().encode(),
        "DIFF.md": render_diff(plain, shown, layers=plain.base.layers).encode(),
    }
