"""Fixtures for the tests of the local Hub."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hubedit_localhub import LocalHub
from hubedit_localhub.fixtures import localhub
from huggingface_hub import HfApi, constants

__all__ = ["localhub"]


@pytest.fixture(autouse=True)
def no_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send large files through LFS; a server cannot tell the client so."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def api(localhub: LocalHub) -> HfApi:
    """The owner's client."""
    return localhub.api()


@pytest.fixture
def fsck(localhub: LocalHub) -> Callable[[str], str]:
    """Run `git fsck` on a model repository and return what it complains about."""

    def run(repo_id: str) -> str:
        path = localhub.root / "models" / f"{repo_id}.git"
        done = subprocess.run(
            ["git", "-C", str(path), "fsck", "--full", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(path), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"},
        )
        return done.stdout + done.stderr + ("" if done.returncode == 0 else f"rc {done.returncode}")

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a card, a text file and a small weight file."""
    place = tmp_path / "model"
    (place / "sub").mkdir(parents=True)
    (place / "README.md").write_text("---\nlicense: mit\ntags: [tiny]\n---\n# Tiny\n")
    (place / "sub" / "notes.txt").write_text("line\n" * 20)
    (place / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    return place
