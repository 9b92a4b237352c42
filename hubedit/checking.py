"""Installed plugins held to the contract of every method, and the report of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
    if info.name in {plugins!r}:
        rows = {{"rows": FORGET_ROWS}} if issubclass(method.row_type(), ForgetRow) else {{}}
        name = "Test_" + method.name.replace("-", "_")
        globals()[name] = type(name, (MethodContract,), {{"method": method, **rows}})
del method, info
"""


@dataclass(frozen=True)
class Promise:
    """One promise of the contract, whether a plugin keeps it, and if not what was found."""

    plugin: str
    method: str
    """Empty where the promise is about the plugin as a whole."""
    promise: str
    kept: bool
    reason: str = ""


def check(infos: Sequence[PluginInfo], only: Sequence[str] = ()) -> list[Promise]:
    """Hold plugins to what is promised of them: of all, and of each method on a tiny model.

    Args:
        infos: the plugins.
        only: words of the promises to test, or `METHOD: words` as the report prints them; by
            default all are tested.

    Raises:
        PluginError: pytest is not installed, a plugin did not load or offers no method, or the
            contract did not run.
    """
    if find_spec("pytest") is None:
        raise PluginError("the contract runs in pytest: pip install 'hubedit[test]'")
    found = []
    for info in infos:
        if not info.methods:
            said = "; ".join(info.errors)
            raise PluginError(
                f"plugin {info.name!r} is not in order: {said}"
                if said
                else f"plugin {info.name!r} offers no method, so there is nothing to check"
            )
        errors = "; ".join(info.errors)
        found.append(Promise(info.name, "", "the plugin loads in order", not errors, errors))
    return found + _contract(infos, only)


def _contract(infos: Sequence[PluginInfo], only: Sequence[str]) -> list[Promise]:
    """Run the tests of the contract in a process of their own."""
    owners = {method.name: info.name for info in infos for method in info.methods}
    words = " or ".join(_selection(text) for text in only)
    with tempfile.TemporaryDirectory(prefix="hubedit-check-") as scratch:
        tests, results = Path(scratch, "test_contract.py"), Path(scratch, "results.xml")
        names = [info.name for info in infos]
        tests.write_text(_TESTS.format(plugins=names), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir"]
        done = subprocess.run(
            [*command, scratch, "-o", "addopts=", "-k", words, f"--junitxml={results}", str(tests)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        kept = _read(results, owners) if results.is_file() else []
        if not kept:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise PluginError(f"the contract did not run: {said[-1] if said else 'no output'}")
        return kept


def _selection(text: str) -> str:
    """What pytest takes for `words` or `METHOD: words`."""
    method, colon, words = text.rpartition(": ")
    chosen = words.partition("(")[0].strip().replace(" ", "_")
    return f"(Test_{method.strip().replace('-', '_')} and {chosen})" if colon else chosen


def _read(results: Path, owners: Mapping[str, str]) -> list[Promise]:
    found = []
    for case in ElementTree.parse(results).iter("testcase"):
        broken = [one for kind in ("failure", "error") for one in case.iter(kind)]
        lines = broken[0].get("message", "").splitlines() if broken else []
        reason = lines[0].removeprefix("Failed: ") if lines else ""
        method = case.get("classname", "").rpartition("Test_")[2].replace("_", "-")
        promise = case.get("name", "").removeprefix("test_").replace("_", " ")
        promise = promise.replace("[", " (").replace("]", ")")
        found.append(Promise(owners.get(method, ""), method, promise, not broken, reason))
    return found


def broken(promises: Sequence[Promise]) -> list[Promise]:
    """The promises that are not kept."""
    return [promise for promise in promises if not promise.kept]
