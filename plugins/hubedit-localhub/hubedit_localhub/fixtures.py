"""A pytest fixture: a fresh Hub for one test, with the client's environment to itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hubedit_localhub.server import LocalHub

_PLACES = {
    "HF_HUB_CACHE": "hub",
    "HF_ASSETS_CACHE": "assets",
    "HF_XET_CACHE": "xet",
    "HF_TOKEN_PATH": "token",
}
"""Where the client keeps what, below its home."""


@pytest.fixture
def localhub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A running Hub of its own root; the client's cache lies in `tmp_path`, Xet is off."""
    from huggingface_hub import constants

    from hubedit_localhub.server import serve

    home = tmp_path / "hf-home"
    with serve(tmp_path / "hub") as hub:
        for name, value in hub.env(home).items():
            monkeypatch.setenv(name, value)
        # The client reads these variables once, on import, and has no call that reads them again.
        # The process of a test imported it long before this Hub had a port, and plain calls of
        # the client, of transformers and of datasets, to which a test gives no cache_dir, must not
        # write to the home of whoever runs it. So its public constants are set as well, until
        # the test ends.
        for name, place in _PLACES.items():
            monkeypatch.setattr(constants, name, str(home / place))
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
            monkeypatch.setattr(constants, name, True)
        yield hub
