"""What costs nothing until it is used: imports, help, and the verbs that need no torch."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=2", "--force"]
HEAVY = ("torch", "transformers", "numpy", "pydantic", "rich", "huggingface_hub", "pluggy")


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loaded(code, names=HEAVY):
    """Which of the heavy libraries a piece of code imports."""
    return python(
        f"import contextlib, io, json, sys\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
        f"print(json.dumps([name for name in {names!r} if name in sys.modules]))"
    )


def test_importing_hubedit_loads_nothing_heavy():
    assert loaded("import hubedit") == []


def test_help_imports_click_alone():
    assert loaded("from hubedit.cli import run; run(['--help'])") == []
    assert loaded("from hubedit.cli import run; run(['apply', '--help'])") == []
    assert loaded("from hubedit.cli import run; run(['--version'])") == []


def test_help_costs_at_most_two_and_a_half_times_click():
    """A ratio of medians within one run, taken in turn."""
    program = str(Path(sys.executable).parent / "hubedit")
    commands = {"click": [sys.executable, "-c", "import click"], "help": [program, "--help"]}
    times = {name: [] for name in commands}
    for _ in range(9):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times[name].append(time.perf_counter() - start)
    ratio = statistics.median(times["help"]) / statistics.median(times["click"])
    assert ratio <= 2.5


@pytest.mark.parametrize(
    "verb", [["plugins"], ["methods"], ["methods", "rome"]], ids=lambda verb: " ".join(verb)
)
def test_listing_loads_no_torch(verb):
    assert loaded(f"from hubedit.cli import run; run({verb!r})", ("torch", "transformers")) == []


def test_show_and_verify_load_neither_torch_nor_transformers(hubedit, tiny, tmp_path):
    status, _, err = hubedit(
        "apply", "--plugin", "rome", "--base", tiny, *FACT, *LIGHT, "-o", "edit"
    )
    assert status == 0, err
    for verb in ("show", "verify", "log"):
        code = f"from hubedit.cli import run; assert run([{verb!r}, 'edit']) == 0"
        assert loaded(code, ("torch", "transformers")) == []
    code = "from hubedit.cli import run; assert run(['verify', 'edit', '--deep']) == 0"
    assert loaded(code, ("torch", "transformers")) == []
    code = "from hubedit.cli import run; assert run(['materialize', 'edit', '-o', 'm']) == 0"
    assert loaded(code, ("torch", "transformers")) == []
