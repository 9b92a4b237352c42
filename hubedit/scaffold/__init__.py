"""A new plugin project: a method that works, its tests, and all that publishing it needs."""

from __future__ import annotations

import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hubedit import __version__
from hubedit.errors import PluginError
from hubedit.revisions import check_output

_NAME = re.compile(r"hubedit-[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "method.py": "{module}/__init__.py",
    "test_contract.py": "tests/test_contract.py",
    "test_facts.py": "tests/test_facts.py",
    "test_workflow.yml": ".github/workflows/test.yml",
    "release_workflow.yml": ".github/workflows/release.yml",
}
"""Templates, and where each goes in the project."""


def write_project(name: str, parent: Path) -> Path:
    """Write a project `hubedit-…` into a new directory below `parent`; returns the directory.

    Raises:
        PluginError: the name is not of the form `hubedit-mine`.
        OutputError: the directory exists and is not empty.
    """
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"{name!r} is no name for a plugin's distribution; use lower case letters, digits and "
            "hyphens after `hubedit-`, such as hubedit-mine"
        )
    target = parent / name
    check_output(target)
    plugin = name.removeprefix("hubedit-")
    words = {
        "project": name,
        "plugin": plugin,
        "module": name.replace("-", "_"),
        "klass": "".join(part.capitalize() for part in plugin.split("-")),
        "title": " ".join(part.capitalize() for part in plugin.split("-")),
        "version": __version__,
    }
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    templates = resources.files("hubedit.scaffold") / "files"
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    try:
        for template, place in _FILES.items():
            path = work / place.format(module=words["module"])
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (templates / f"{template}.jinja").read_text(encoding="utf-8")
            path.write_text(environment.from_string(text).render(words), encoding="utf-8")
        (work / words["module"] / "py.typed").touch()
        (work / "LICENSE").write_bytes((templates / "LICENSE").read_bytes())
        work.chmod(0o755)
        if target.exists():
            target.rmdir()
        work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target
