"""A pytest fixture: a fresh Hub for one test, with the client's environment to itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hubedit_localhub.server import LocalHub


@pytest.fixture
def localhub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A running Hub of its own root; the client's cache lies in `tmp_path`, Xet is off."""
    from huggingface_hub import constants

    from hubedit_localhub.server import serve

    home = tmp_path / "hf-home"
    with serve(tmp_path / "hub") as hub:
        for name, value in hub.env(home).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_TOKEN_PATH"):
            value = {"HF_HUB_CACHE": "hub", "HF_ASSETS_CACHE": "assets", "HF_XET_CACHE": "xet"}.get(
                name, "token"
            )
            monkeypatch.setattr(constants, name, str(home / value))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield hub
