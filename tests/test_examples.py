"""The example plugins: installed by pip into an environment of their own, as a stranger would."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("hubedit-*"))


@pytest.fixture
def python(environment, tmp_path):
    """Run Python in an environment where all examples are installed; gives its stdout."""
    run = _runner(environment, tmp_path)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run("-m", "pip", "install", *quiet, *EXAMPLES)
    return run


def _runner(environment, directory):
    def run(*arguments, status=0):
        done = subprocess.run(
            [environment, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def test_the_examples_keep_the_contract_and_pass_their_tests(python, tmp_path):
    listed = {
        item["name"]: item for item in json.loads(python("-m", "hubedit", "plugins", "--json"))
    }
    for project in EXAMPLES:
        name = project.name.removeprefix("hubedit-")
        found = listed[name]
        assert (found["distribution"], found["errors"]) == (project.name, [])
        assert found["methods"] == [name]
        assert found["origin"] == "local directory"
    tests = [project / "tests" for project in EXAMPLES]
    python("-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-c",
           os.devnull, f"--rootdir={tmp_path}", *tests)  # fmt: skip
    (tmp_path / "request.jsonl").write_text('{"prompt": "{} is", "subject": "A", "target": "B"}\n')
    python("-m", "hubedit", "mirror", "request.jsonl", "-o", "mirrored.jsonl")
    assert "The one with the B is" in (tmp_path / "mirrored.jsonl").read_text()


@pytest.mark.parametrize("project", EXAMPLES, ids=lambda project: project.name)
def test_an_example_is_a_whole_project_outside_the_wheel(project):
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        assert (project / name).is_file()
    said = tomllib.loads((project / "pyproject.toml").read_text())
    assert said["project"]["name"] == project.name
    root = tomllib.loads((project.parents[1] / "pyproject.toml").read_text())
    packages = root["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert not any("examples" in package for package in packages)


def test_the_smallest_example_is_the_one_in_the_docs():
    page = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
    code = (EXAMPLES[1] / "hubedit_nudge.py").read_text(encoding="utf-8")
    assert f"```python\n# hubedit_nudge.py\n{code}```" in page
