"""The documentation: its blocks run, its commands exist, its reference holds all there is."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click
import pytest
import yaml

import hubedit
from hubedit.cli import VERBS, cli
from hubedit.plugins import load_plugins
from hubedit.policy import read_policy
from hubedit.recipe import Recipe, read_recipe

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*/README.md")])
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
MODULES = {"hf": "huggingface_hub.cli.hf"}
OUTSIDE = ("mirror",)
"""Commands of plugins that are not installed here."""


def blocks(page, *kinds):
    """The code blocks of a page of some kinds: what follows the fence, and the text."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(m["info"], m["text"]) for m in found if (m["info"].split() or [""])[0] in kinds]


def reference():
    spec = spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_is_python_and_commands_exist_with_their_options(page):
    for _, text in blocks(page, "python"):
        compile(text, str(page), "exec")
    for _, text in blocks(page, "", "sh", "bash", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for command in re.split(r"&&|;|\|", line.split("  #")[0]):
                words = shlex.split(command, comments=True) if "hubedit" in command else []
                if words[:1] == ["hubedit"] and words[1:2] != ["*.whl"]:
                    parsed(words[1:], page)


def parsed(words, page):
    """Parse a command line as click would, without running anything."""
    context, command = click.Context(cli, info_name="hubedit"), cli
    while True:
        _, words, _ = command.make_parser(context).parse_args(words)
        if not isinstance(command, click.Group) or not words or words[0] in OUTSIDE:
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"{page}: there is no `hubedit {words[0]}`"
        context, command = click.Context(found, parent=context, info_name=words[0]), found
        words = words[1:]


@pytest.mark.parametrize("name", ["contract.md", "exactness.md"])
def test_the_python_of_a_page_runs(name):
    code = "\n".join(text for _, text in blocks(ROOT / "docs" / name, "python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_yaml_of_policy_and_recipe_can_be_used(tmp_path):
    ((_, text),) = [one for one in blocks(ROOT / "docs" / "policy.md", "yaml") if "title" in one[0]]
    (tmp_path / "policy.yaml").write_text(text)
    assert read_policy(tmp_path / "policy.yaml").max_relative_norm == 0.2
    first = blocks(ROOT / "docs" / "recipe.md", "yaml")[0][1]
    (tmp_path / "hubedit.yaml").write_text(first)
    assert set(read_recipe(tmp_path / "hubedit.yaml")) <= set(Recipe.model_fields)


def test_the_tutorial_runs_from_ten_lines_to_a_merged_revision(environment, localhub, tmp_path):
    for name in ("hubedit", "hf", "pip", "pytest"):
        program = environment.parent / name
        program.write_text(f'#!/bin/sh\nexec "{environment}" -m {MODULES.get(name, name)} "$@"\n')
        program.chmod(0o755)
    script = ["set -ex", "trap 'hubedit hub stop' EXIT", f"cd {tmp_path}"]
    for info, text in blocks(ROOT / "docs" / "tutorial.md", "toml", "python", "sh"):
        title = re.search(r'title="([^"]+)"', info)
        if title:
            path = shlex.quote(title[1])
            script.append(f"mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END")
        else:
            script.append(f"(\n{text})")
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{environment.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    answered = done.stdout.split("hubedit-yours")[0]
    assert "violin" in answered
    assert (tmp_path / "hubedit-yours" / "LICENSE").is_file()


# -- the reference -----------------------------------------------------------------------------


def test_the_reference_holds_every_command_hook_and_setting():
    pages = {path: page() for path, page in reference().PAGES.items()}
    for verb in VERBS:
        assert f"## hubedit {verb}\n" in pages["reference/commands.md"]
    for name in vars(hubedit.hookspecs):
        if name.startswith("hubedit_"):
            assert f"### {name}\n" in pages["reference/hooks.md"]
    for method, _ in load_plugins().methods():
        part = pages["reference/settings.md"].split(f"## {method.name}\n")[1].split("\n## ")[0]
        for field in method.config_type().model_fields:
            assert f"| `{field}` |" in part
    for name in hubedit.__all__:
        assert f"### {name}\n" in pages["reference/names.md"] or not callable(
            getattr(hubedit, name)
        )


def test_the_list_of_public_names_is_kept():
    module = reference()
    said = module.NAMES.read_text(encoding="utf-8")
    assert said == module.listed(), (
        "public names came or went: if that is meant, run `python docs/reference.py` and say so in "
        "the changelog"
    )


def test_every_public_name_and_what_it_offers_has_a_docstring():
    module = reference()
    for home in module.MODULES:
        for name, thing in module.public(import_module(home)):
            assert (thing.__doc__ or "").strip(), f"{home}.{name}"
            members = vars(thing).items() if inspect.isclass(thing) else ()
            for member, value in members:
                if inspect.isfunction(value) and not member.startswith("_"):
                    assert (value.__doc__ or "").strip(), f"{home}.{name}.{member}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" in target or target.startswith(("mailto:", "reference/", "../reference/")):
            continue
        assert (page.parent / target).exists(), f"{page}: {target}"
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    if page.parent == ROOT / "docs":
        assert page.name in str(nav)
