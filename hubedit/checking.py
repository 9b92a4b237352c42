"""Installed plugins held to the contract of every method, and the report of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from hubedit.errors import PluginError
from hubedit.plugins import PluginInfo

_TESTS = """
from hubedit.plugins import load_plugins
from hubedit.rows import ForgetRow
from hubedit.testing import FORGET_ROWS, MethodContract

for method, info in load_plugins().methods():
    if info.name == {plugin!r}:
        rows = {{"rows": FORGET_ROWS}} if issubclass(method.row_type(), ForgetRow) else {{}}
        name = "Test_" + method.name.replace("-", "_")
        globals()[name] = type(name, (MethodContract,), {{"method": method, **rows}})
del method, info
"""


@dataclass(frozen=True)
class Promise:
    """One promise of the contract, whether a method keeps it, and if not what was found."""

    method: str
    promise: str
    kept: bool
    reason: str = ""


def check(info: PluginInfo) -> list[Promise]:
    """Hold every method of a plugin to the contract, on a tiny model with random weights.

    Raises:
        PluginError: pytest is not installed, the plugin did not load, or it offers no method.
    """
    if find_spec("pytest") is None:
        raise PluginError("the contract runs in pytest: pip install 'hubedit[test]'")
    if info.errors:
        raise PluginError(f"plugin {info.name!r} is not in order: {'; '.join(info.errors)}")
    if not info.methods:
        raise PluginError(f"plugin {info.name!r} offers no method, so there is nothing to check")
    with tempfile.TemporaryDirectory(prefix="hubedit-check-") as scratch:
        tests, results = Path(scratch, "test_contract.py"), Path(scratch, "results.xml")
        tests.write_text(_TESTS.format(plugin=info.name), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir"]
        done = subprocess.run(
            [*command, scratch, "-o", "addopts=", f"--junitxml={results}", str(tests)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if not results.is_file():
            said = (done.stdout + done.stderr).strip().splitlines()
            raise PluginError(f"the contract did not run: {said[-1] if said else 'no output'}")
        return _read(results)


def _read(results: Path) -> list[Promise]:
    found = []
    for case in ElementTree.parse(results).iter("testcase"):
        broken = [one for kind in ("failure", "error") for one in case.iter(kind)]
        reason = broken[0].get("message", "").splitlines()[0] if broken else ""
        method = case.get("classname", "").rpartition("Test_")[2].replace("_", "-")
        promise, _, model = case.get("name", "").removeprefix("test_").partition("[")
        promise = promise.replace("_", " ") + (f" ({model.rstrip(']')})" if model else "")
        found.append(Promise(method, promise, not broken, reason))
    return found


def broken(promises: Sequence[Promise]) -> list[Promise]:
    """The promises that are not kept."""
    return [promise for promise in promises if not promise.kept]
