"""Every test has its own home, one thread, and no way to the real Hub."""

import importlib
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # read once, at import: a server cannot tell the client so
os.environ["NO_PROXY"] = "127.0.0.1,localhost"

import shutil

import pytest

from hubedit.cli import run
from hubedit.plugins import load_plugins
from hubedit.testing import tiny_model

pytest_plugins = ["hubedit_localhub.fixtures"]


@pytest.fixture(scope="session")
def _tried_plugins(tmp_path_factory):
    """What is learnt of the installed plugins, once for all tests."""
    home = tmp_path_factory.mktemp("tried")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBEDIT_HOME", str(home))
        load_plugins()
    return home / "plugins.json"


@pytest.fixture(autouse=True)
def _home(tmp_path, tmp_path_factory, monkeypatch, _tried_plugins):
    home = tmp_path_factory.mktemp("home")
    shutil.copy(_tried_plugins, home / "plugins.json")
    monkeypatch.setenv("HUBEDIT_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HUBEDIT_DEBUG", "HUBEDIT_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A model with random weights that every test may read."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def hubedit(capsys):
    """Run one command line in this process; gives its exit status, stdout and stderr."""

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install distributions of one module each, as pip would leave them."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(name, source, group="hubedit"):
        module = f"plugin_{name.replace('-', '_')}"
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return module

    return add


@pytest.fixture
def environment(tmp_path):
    """A virtual environment that sees what this one has, and what is installed into it."""
    home = tmp_path / "v"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    outer = sysconfig.get_path("purelib")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    return home / "bin" / "python"
