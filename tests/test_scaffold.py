"""New plugin projects, and installed plugins held to their promises."""

import json

import pytest

FICKLE = """
    import hubedit
    from pydantic import Field


    class FickleConfig(hubedit.Config):
        layer: int = Field(1)


    class Fickle(hubedit.Method[hubedit.FactEdit, FickleConfig]):
        '''Changes something else every time, and leaves a hook behind.'''

        name = "fickle"
        kind = "edit"
        assurance = "exact"
        architectures = {"causal"}

        def apply(self, model, rows, config, run):
            import os
            import numpy

            name = model.layout.mlp_out_weight(config.layer)
            left, right = model.weight(name).shape
            draw = numpy.random.default_rng(int.from_bytes(os.urandom(4), "big"))
            step = draw.standard_normal((left, 1)), draw.standard_normal((1, right))
            model.update(name, hubedit.LowRank(*(part.astype("float32") for part in step)))
            model.model.register_forward_hook(lambda *given: None)


    @hubedit.hookimpl
    def hubedit_methods():
        return [Fickle]
"""


def test_a_project_is_complete_and_never_written_over(hubedit, tmp_path):
    status, out, _ = hubedit("plugins", "new", "hubedit-mine", "-o", tmp_path, "--json")
    assert status == 0
    files = json.loads(out)["files"]
    for path in (
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "hubedit_mine/__init__.py",
        "hubedit_mine/py.typed",
        "tests/test_contract.py",
        ".github/workflows/release.yml",
    ):
        assert path in files
    text = "".join(
        path.read_text() for path in (tmp_path / "hubedit-mine").rglob("*") if path.is_file()
    )
    assert "{%" not in text
    status, _, err = hubedit("plugins", "new", "hubedit-mine", "-o", tmp_path)
    assert (status, "not empty" in err) == (1, True)


@pytest.mark.parametrize(
    "name", ["mine", "hubedit-", "hubedit-Mine", "hubedit_mine", "../hubedit-x"]
)
def test_a_name_that_no_index_would_take_is_refused(hubedit, tmp_path, name):
    status, _, err = hubedit("plugins", "new", name, "-o", tmp_path)
    assert status == 1
    assert "hubedit-mine" in err
    assert list(tmp_path.iterdir()) == []


def test_broken_promises_are_named(hubedit, install):
    install("fickle", FICKLE)
    status, out, err = hubedit("plugins", "check", "fickle")
    assert status == 1
    broken = {line.partition(": ")[2] for line in out.splitlines() if line.startswith("BROKEN")}
    assert any(line.startswith("the same seed gives the same bits") for line in broken)
    assert any(line.startswith("the model is left as it was found") for line in broken)
    assert any(line.startswith("every setting is described") for line in broken)
    assert all("plugin_fickle.py:" in line for line in broken)
    assert "promises kept" in err


def test_what_cannot_be_checked_says_why(hubedit, install):
    install("absent", "raise RuntimeError('no such luck')")
    status, _, err = hubedit("plugins", "check", "absent")
    assert (status, "no such luck" in err) == (1, True)
    status, _, err = hubedit("plugins", "check", "rmoe")
    assert (status, "rome" in err) == (1, True)
    status, _, err = hubedit("plugins", "check", "localhub")
    assert (status, "offers no method" in err) == (1, True)
