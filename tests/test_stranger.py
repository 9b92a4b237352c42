"""A stranger's plugin of two files, installed by pip into an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "hubedit-nudge"
version = "0.3.0"
dependencies = ["hubedit"]

[project.entry-points.hubedit]
nudge = "hubedit_nudge"

[tool.hatch.build.targets.wheel]
include = ["hubedit_nudge.py"]
"""
CONTRACT = """
from hubedit.testing import MethodContract
from hubedit_nudge import Nudge


class TestNudge(MethodContract):
    method = Nudge
"""
DOCS = Path(__file__).parent.parent / "docs" / "plugins.md"


def block(after):
    """The first Python block of the page about plugins that follows a line."""
    page = DOCS.read_text(encoding="utf-8").split(after, 1)[1]
    return page.split("```python\n", 1)[1].split("```")[0]


def test_two_files_make_a_plugin_that_is_listed_keeps_the_contract_edits_and_pushes(
    environment, localhub, tiny, tmp_path
):
    project = tmp_path / "hubedit-nudge"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "hubedit_nudge.py").write_text(block("```toml"))
    (tmp_path / "test_nudge.py").write_text(CONTRACT)

    def python(*arguments):
        done = subprocess.run(
            [environment, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    python(*install, "--disable-pip-version-check", project)
    (listed,) = [
        info
        for info in json.loads(python("-m", "hubedit", "plugins", "--json"))
        if info["name"] == "nudge"
    ]
    assert listed["distribution"] == "hubedit-nudge"
    assert (listed["version"], listed["methods"], listed["errors"]) == ("0.3.0", ["nudge"], [])
    some = "same_seed or left_as_it_was or loads or rebuild"  # the examples are held to the rest
    python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", some, tmp_path / "test_nudge.py")

    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    python(
        *["-m", "hubedit", "apply", "--plugin", "nudge", "--base", "me/tiny", "--push"],
        *["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"],
    )
    python("-m", "hubedit", "merge", "me/tiny-edited", "1")
    python("-m", "hubedit", "verify", "me/tiny-edited@v1", "--deep")


def test_a_new_project_passes_its_own_tests_keeps_every_promise_and_edits_as_generated(
    environment, localhub, tmp_path, hubedit
):
    status, out, _ = hubedit("plugins", "new", "hubedit-my-own", "-o", tmp_path, "--json")
    assert status == 0
    project = tmp_path / "hubedit-my-own"
    assert json.loads(out)["directory"] == str(project)

    def python(*arguments):
        done = subprocess.run(
            [environment, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=project,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    python(*install, "--disable-pip-version-check", project)
    python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_facts.py")
    promises = json.loads(python("-m", "hubedit", "plugins", "check", "my-own", "--json"))
    assert len(promises) >= 10
    assert all(promise["kept"] for promise in promises)
    said = json.loads(python("-m", "hubedit", "plugins", "info", "my-own", "--json"))
    assert (said["distribution"], said["module"]) == ("hubedit-my-own", "hubedit_my_own")
    assert len(said["sha256"]) == 64
