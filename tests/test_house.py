"""The rules of the house that a tool can check."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hubedit
from hubedit import hookspecs

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("hubedit/**/*.py"), *ROOT.glob("plugins/*/hubedit_*/**/*.py")])
PROJECTS = sorted(ROOT.glob("plugins/*/pyproject.toml"))


def toml(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_the_root_declares_exactly_what_the_plugins_declare():
    root = toml(ROOT / "pyproject.toml")
    wanted = {}
    packages = {"hubedit"}
    for path in PROJECTS:
        for group, points in toml(path)["project"].get("entry-points", {}).items():
            wanted.setdefault(group, {}).update(points)
        homes = path.parent.glob("hubedit_*/__init__.py")
        packages |= {str(home.parent.relative_to(ROOT)) for home in homes}
    assert root["project"]["entry-points"] == wanted
    assert set(root["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages


def test_the_root_depends_on_all_that_the_plugins_depend_on():
    def names(dependencies):
        return {re.split(r"[^\w.-]", text)[0].lower().replace("-", "_") for text in dependencies}

    root = names(toml(ROOT / "pyproject.toml")["project"]["dependencies"])
    root |= {"hubedit", *names(toml(path)["project"]["name"] for path in PROJECTS)}
    for path in PROJECTS:
        assert names(toml(path)["project"].get("dependencies", [])) <= root


def test_dependencies_have_floors_and_constraints_pin_the_tested_set():
    project = toml(ROOT / "pyproject.toml")["project"]
    pinned = {
        line.split("==")[0].lower().replace("-", "_")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for text in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        assert ">=" in text
        assert "==" not in text
        assert re.split(r"[^\w.-]", text)[0].lower().replace("-", "_") in pinned
    assert all(">=" in text for text in extras)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_owns(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    if text.strip():
        assert text.startswith('"""')
        assert text[3:].split('"""')[0].split("\n\n")[0].rstrip().endswith((".", ":"))


def test_the_host_names_no_method():
    from hubedit.plugins import load_plugins

    names = [method.name for method, _ in load_plugins().methods()]
    assert "rome" in names
    names.remove("lora")  # also the format that `export` writes
    names.remove("jang")  # also the author of measures that the host takes
    for path in ROOT.glob("hubedit/**/*.py"):
        code = path.read_text(encoding="utf-8")
        for name in names:
            assert not re.search(rf"\b{name}\b", code, re.IGNORECASE), path


def test_every_hook_is_documented_and_tested():
    hooks = [name for name in vars(hookspecs) if name.startswith("hubedit_")]
    docs = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    tests = (ROOT / "tests" / "test_plugins.py").read_text(encoding="utf-8")
    assert hooks
    for name in hooks:
        assert f"### {name}\n" in docs
        assert name in tests


def test_every_public_name_resolves():
    assert sorted(hubedit.__all__) == hubedit.__all__
    for name in hubedit.__all__:
        assert getattr(hubedit, name).__doc__
    with pytest.raises(AttributeError):
        hubedit.no_such_name  # noqa: B018


def test_workflows_pin_actions_by_sha_and_start_without_permissions():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert "\npermissions: {}\n" in text
        for action in re.findall(r"uses: (\S+)", text):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


def test_the_changelog_names_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{hubedit.__version__}]" in text or "## [Unreleased]" in text


@pytest.mark.parametrize("module", ["hubedit", "hubedit_rome", "hubedit_localhub", "hubedit_demo"])
def test_importing_is_silent(module):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {module}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
