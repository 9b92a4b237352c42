"""A small Hub on 127.0.0.1 for the Hugging Face client, the `hf` command and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hubedit

if TYPE_CHECKING:
    from hubedit_localhub.background import LocalHubInfo, connect
    from hubedit_localhub.calls import Limits
    from hubedit_localhub.server import LocalHub, serve

__all__ = ["Limits", "LocalHub", "LocalHubInfo", "connect", "hubedit_endpoint", "serve"]

_HOMES = {
    "Limits": "calls",
    "LocalHub": "server",
    "LocalHubInfo": "background",
    "connect": "background",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


@hubedit.hookimpl
def hubedit_endpoint(name: str) -> hubedit.Endpoint | None:
    """Answer for "local": the background Hub of hubedit's own directory."""
    if name != "local":
        return None
    from hubedit_localhub.background import connect

    info = connect()
    return hubedit.Endpoint(url=info.url, token=info.token, user=info.user, home=info.home)
