"""A gallery of bad plugins: each is kept apart or caught, by a message that says whose fault it is.

Every message names the plugin, the promise that is broken, and the place where.
"""

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from hubedit.plugins import load_plugins

METHOD = """
import hubedit
from pydantic import Field


class Settings(hubedit.Config):
    layer: int = Field(1, description="which block")


class Changes(hubedit.Method[hubedit.FactEdit, Settings]):
    "Change one matrix a little."

    name = "NAME"
    kind = "edit"
    assurance = "approximate"
    architectures = {"causal"}
    limits = ("it knows nothing",)

    def targets(self, layout, config):
        return [layout.mlp_out_weight(config.layer)]

    def apply(self, model, rows, config, run):
        import torch

        name = model.layout.mlp_out_weight(config.layer)
        left, right = model.weight(name).shape
        BODY


@hubedit.hookimpl
def hubedit_methods():
    return [Changes]
"""
STEP = """
step = torch.randn(left, 1, generator=run.generator), torch.randn(1, right) / 100
model.update(name, hubedit.LowRank(*step))
"""


def plugin(name, body=STEP, **changes):
    """The source of a plugin that is in order but for its body, or for other texts in it."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), " " * 8).strip()
    source = METHOD.replace("NAME", name).replace("BODY", lines)
    for old, new in changes.items():
        assert OLD[old] in source
        source = source.replace(OLD[old], new)
    return source


OLD = {
    "top": "import hubedit\n",
    "hook": "def hubedit_methods():",
    "offers": "return [Changes]",
    "assurance": 'assurance = "approximate"',
}

LISTED = {
    "raises on import": (
        {"top": "import hubedit\n\nraise ValueError('no luck')\n"},
        ["import of plugin_bad failed", "ValueError: no luck", "(plugin_bad.py:4)"],
    ),
    "wrong hook signature": (
        {"hook": "def hubedit_methods(config):"},
        ["the hook hubedit_methods", "written with config", "(plugin_bad.py:3"],
    ),
    "misspelt hook": (
        {"hook": "def hubedit_method():"},
        ["unknown hook 'hubedit_method'", "did you mean 'hubedit_methods'", "(plugin_bad.py:3"],
    ),
    "prints on import": (
        {"top": "import hubedit\n\nprint('buy my course')\n"},
        ["prints when it is imported: buy my course", "is silent", "(plugin_bad.py:4)"],
    ),
    "imports torch at import": (
        {"top": "import hubedit\nimport torch\n"},
        ["imports torch (plugin_bad.py:3) when it is imported", "is quick"],
    ),
    "raises inside a hook": (
        {"offers": "return [1 / 0]"},
        ["hubedit_methods failed", "ZeroDivisionError", "(plugin_bad.py:3"],
    ),
}


@pytest.mark.parametrize("fault", LISTED)
def test_what_a_listing_can_see_is_listed_and_the_others_work(install, hubedit, fault):
    changes, said = LISTED[fault]
    install("bad", plugin("bad", **changes))
    install("good", plugin("good"))
    status, out, err = hubedit("plugins", "--json")
    assert (status, err) == (0, "")
    listed = {item["name"]: item for item in json.loads(out)}
    (error,) = listed["bad"]["errors"]
    for words in said:
        assert words in error
    assert "\n" not in error
    assert listed["good"]["methods"] == ["good"]
    assert listed["good"]["errors"] == []
    status, out, _ = hubedit("plugins")
    assert (status, "plugin_bad" in out) == (0, True)


def test_what_loads_with_a_fault_can_still_be_used_and_fails_its_check(install, hubedit):
    install("bad", plugin("bad", top="import hubedit\n\nprint('buy my course')\n"))
    assert load_plugins().method("bad")
    status, out, _ = hubedit("plugins", "check", "bad", "--only", "every setting")
    assert status == 1
    (line,) = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert line.startswith("BROKEN bad: the plugin loads in order: prints when it is imported")


def test_two_with_one_name_are_told_apart(install, hubedit):
    install("a-first", plugin("mine"))
    install("b-second", plugin("mine"))
    listed = {item["name"]: item for item in json.loads(hubedit("plugins", "--json")[1])}
    assert listed["a-first"]["methods"] == ["mine"]
    (error,) = listed["b-second"]["errors"]
    assert "'mine' (plugin_b_second.py:10)" in error
    assert "which a-first already offers; a name belongs to the first" in error


def test_one_that_blocks_is_cut_off_and_says_where_it_waits(install, hubedit, monkeypatch):
    install("bad", plugin("bad", top="import hubedit\nimport time\n\ntime.sleep(60)\n"))
    monkeypatch.setenv("HUBEDIT_PLUGIN_SECONDS", "2")
    began = time.monotonic()
    listed = {item["name"]: item for item in json.loads(hubedit("plugins", "--json")[1])}
    assert time.monotonic() - began < 30
    (error,) = listed["bad"]["errors"]
    assert "takes more than 2 seconds (plugin_bad.py:5)" in error
    assert listed["rome"]["methods"] == ["rome"]


def test_a_newer_one_gets_a_sentence(install, hubedit, tmp_path):
    install("newer", plugin("newer"))
    metadata = tmp_path / "site" / "plugin_newer-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: hubedit>=9.1\n")
    install("asks", plugin("asks", top="import hubedit\nfrom hubedit import Steering\n"))
    install("reads", plugin("reads", top="import hubedit\nhubedit.Steering\n"))
    install("calls", plugin("calls", body="run.publish_at_once(left, right)"))
    status, out, err = hubedit("plugins", "--json")
    assert (status, err) == (0, "")
    listed = {item["name"]: item["errors"] for item in json.loads(out)}
    assert listed["newer"] == [
        "it is written for hubedit>=9.1, and this is 0.1.0: pip install 'hubedit>=9.1', or another "
        "version of newer"
    ]
    for name, place in (("asks", "plugin_asks.py:3"), ("reads", "plugin_reads.py:3")):
        (error,) = listed[name]
        assert place in error
        assert "may be written for a newer one: pip install -U hubedit" in error
        assert "Steering" in error


FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe", "-o", "out"]
STOPPED = {
    "writes NaN": (
        """
        with torch.no_grad():
            model.weight(name)[0, 0] = float("nan")
        """,
        [],
        ["holds NaN", "transformer.h.1.mlp.c_proj.weight", "(plugin_bad.py:10)"],
    ),
    "writes NaN by an update": (
        """
        step = torch.full((left, 1), torch.nan), torch.ones(1, right)
        model.update(name, hubedit.LowRank(*step))
        """,
        [],
        ["NaN", "(plugin_bad.py:10)"],
    ),
    "leaks the request": (
        STEP + "run.record('seen', rows[0].subject)",
        ["--disclose", "none"],
        ["manifest.json would hold words of the undisclosed request", "(plugin_bad.py:10)"],
    ),
    "calls what a newer hubedit may have": (
        "run.publish_at_once(left, right)",
        [],
        ["'publish_at_once'", "plugin_bad.py:27", "pip install -U hubedit"],
    ),
    "raises": ("1 / 0", [], ["ZeroDivisionError", "plugin_bad.py:27"]),
}


@pytest.mark.parametrize("fault", STOPPED)
def test_what_a_run_can_see_stops_it_and_nothing_is_written(
    install, hubedit, tiny, tmp_path, fault
):
    body, options, said = STOPPED[fault]
    install("bad", plugin("bad-method", body))
    status, _, err = hubedit("apply", "--plugin", "bad-method", "--base", tiny, *FACT, *options)
    assert status == 1
    assert "Traceback" not in err
    message = err.strip().splitlines()[-1]
    assert "method 'bad-method' of plugin 'bad'" in message
    for words in said:
        assert words in message
    assert not (tmp_path / "out").exists()


BREAKS = {
    "random": (
        """
        import numpy

        step = numpy.random.default_rng().random((left, 1)), numpy.ones((1, right)) / 100
        model.update(name, hubedit.LowRank(*(part.astype("float32") for part in step)))
        """,
        "the same seed gives the same bits",
        "two runs gave the deltas",
    ),
    "hooked": (
        STEP + "model.model.register_forward_hook(lambda *given: None)",
        "the model is left as it was found",
        "forward hooks: none before, ['the model'] after",
    ),
    "undeclared": (
        STEP + "model.update(model.layout.mlp_out_weight(0), hubedit.LowRank(*step))",
        "some weight changes and only declared ones",
        "transformer.h.0.mlp.c_proj.weight changed, and `targets` names transformer.h.1",
    ),
    "leaky": (
        STEP + "run.record('seen', rows[0].subject)",
        "an undisclosed request leaks nothing",
        "manifest.json would hold words of the undisclosed request",
    ),
    "boastful": (
        STEP,
        "the assurance is one that the method has",
        "it claims to be exact, and the edited model does not say what was asked",
    ),
    "certain": (
        STEP,
        "the assurance is one that the method has",
        "it claims to be certified and names no paper",
    ),
    "hoarder": (
        "kept = [model.weight(name).clone() for _ in range(100)]\n" + STEP,
        "memory stays within a few copies of the weights",
        "copies of the weights were held at once, and 8 are the bound",
    ),
    "keeper": (
        STEP + "hubedit.kept = model.weight(name).clone()",
        "memory stays within a few copies of the weights",
        "1 copies of weights are held after the run",
    ),
    "untidy": (
        "hook = model.model.register_forward_hook(lambda *given: None)\n"
        + STEP
        + "model.layout.mlp_out_weight(0)\n" * 20
        + "hook.remove()",
        "an interruption leaves no trace",
        "forward hooks: none before, ['the model'] after",
    ),
    "outside": (
        STEP + "model.model.transformer.h[2].mlp.forward = lambda hidden: 100 * hidden",
        "what is published is what the method left",
        "the method left more than weights",
    ),
}
CLAIMS = {"boastful": 'assurance = "exact"', "certain": 'assurance = "certified"'}


def test_what_a_check_can_see_is_named_with_plugin_promise_and_place(install, hubedit):
    for name, (body, _, _) in BREAKS.items():
        changes = {"assurance": CLAIMS[name]} if name in CLAIMS else {}
        install(name, plugin(f"{name}-method", body, **changes))
    only = [f"--only={name}-method: {promise}" for name, (_, promise, _) in BREAKS.items()]
    status, out, err = hubedit("plugins", "check", *BREAKS, *only)
    assert status == 1, err
    broken = [line for line in out.splitlines() if line.startswith("BROKEN")]
    for name, (_, promise, found) in BREAKS.items():
        start = f"BROKEN {name}, {name}-method: {promise} (causal): "
        assert [
            line
            for line in broken
            if line.startswith(start) and found in line and f"plugin_{name}.py:10" in line
        ], (name, broken)


def test_a_warm_listing_imports_no_plugin_and_notices_what_changed(install, tmp_path, hubedit):
    marks = tmp_path / "marks"
    top = f"import hubedit\n\nopen({str(marks)!r}, 'a').write('x')\n"
    module = install("good", plugin("good", top=top))
    cold = json.loads(hubedit("plugins", "--json")[1])
    tries = len(marks.read_text())
    code = (
        "import contextlib, io, sys; from hubedit.cli import run; said = io.StringIO()\n"
        "with contextlib.redirect_stdout(said): run(['plugins', '--json'])\n"
        "print(sorted(name for name in sys.modules if name.startswith(('hubedit_', 'plugin_'))))\n"
        "print(said.getvalue())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    imported, _, listed = done.stdout.partition("\n")
    assert imported == "[]"
    assert json.loads(listed) == cold
    assert len(marks.read_text()) == tries
    (tmp_path / "site" / f"{module}.py").write_text("raise ValueError('no luck')\n")
    (found,) = [one for one in json.loads(hubedit("plugins", "--json")[1]) if one["name"] == "good"]
    assert "no luck" in found["errors"][0]


def test_what_was_missing_is_tried_again_when_something_is_installed(install, hubedit, tmp_path):
    install("needy", plugin("needy", top="import hubedit\nimport plugin_missing\n"))
    listed = {item["name"]: item["errors"] for item in json.loads(hubedit("plugins", "--json")[1])}
    assert "No module named 'plugin_missing'" in listed["needy"][0]
    install("missing", plugin("missing"))
    listed = {item["name"]: item["errors"] for item in json.loads(hubedit("plugins", "--json")[1])}
    assert listed["needy"] == []
