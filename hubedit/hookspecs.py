"""The hooks a plugin may implement, one sentence each."""

from __future__ import annotations

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


@hookspec
def hubedit_methods() -> list[type[Method[Any, Any]]]:
    """Return the method classes that this plugin offers."""
    return []


@hookspec(firstresult=True)
def hubedit_endpoint(name: str) -> Endpoint | None:
    """Return a running Hub for `name` (`--local` asks for "local"), or None if it is not yours."""
