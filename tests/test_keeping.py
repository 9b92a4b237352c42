"""What a method keeps in the folder of an edit: exact, listed, told to later edits, kept secret."""

from __future__ import annotations

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hubedit
from hubedit import editions, run
from hubedit.context import Silent
from hubedit.errors import HubEditError, ManifestError, MethodError
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe
from hubedit.restacking import without, written
from hubedit.verification import verify

SEEN: list[list[hubedit.Earlier]] = []


class RememberConfig(hubedit.Config):
    """How."""

    layer: int = 0
    harmless: bool = False
    keeps: bool = True


class Remember(hubedit.Method[hubedit.FactEdit, RememberConfig]):
    """Push a matrix by one more than was kept before, and keep the number."""

    name = "remember"
    kind = "edit"
    architectures = frozenset({"causal"})

    def apply(self, model, rows, config, run):
        SEEN.append(list(run.earlier))
        number = 1 + sum(int(edit.kept["number"]) for edit in run.earlier if edit.kept)
        name = model.layout.mlp_out_weight(config.layer)
        left, right = model.weight(name).shape
        factors = np.full((left, 1), 0.25 * number, np.float32), np.ones((1, right), np.float32)
        model.update(name, hubedit.LowRank(*factors))
        run.record("number", number)
        if config.keeps:
            run.keep("number", torch.tensor(number), harmless=config.harmless)
            run.keep("key", torch.full((3,), 1 / 3), harmless=config.harmless)


def no_hub():
    raise HubEditError("this test works without a Hub")


@pytest.fixture
def edit(tiny, tmp_path):
    """Put one more edit on what was made before."""
    SEEN.clear()
    plugins = Plugins()
    module = sys.modules[__name__]
    plugins.infos.append(PluginInfo("test", "test", "0", module=module, methods=[Remember]))

    def make(name, base=tiny, disclose="full", target="oboe", **config):
        row = {"prompt": "{} plays the", "subject": "Ada Brook", "target": target}
        keys = {"base": str(base), "plugin": "remember", "request": [row], "config": config}
        recipe = make_recipe({**keys, "threads": 1, "disclose": disclose})
        job = run.prepare(recipe, no_hub, plugins=plugins)
        return run.apply(job, tmp_path / name).directory

    return make


def folders(directory):
    return sorted((directory / "edits").iterdir())


def test_an_edit_carries_what_its_method_kept_and_lists_it(edit):
    directory = edit("one")
    [folder] = folders(directory)
    kept = load_file(folder / "kept.safetensors")
    assert torch.equal(kept["key"], torch.full((3,), 1 / 3))
    listed = json.loads((directory / "hubedit.json").read_text())["files"]
    content = (folder / "kept.safetensors").read_bytes()
    path = f"edits/{folder.name}/kept.safetensors"
    assert listed[path] == hashlib.sha256(content).hexdigest()
    assert verify(editions.edits_of(str(directory), no_hub)).problems == []


def test_a_method_sees_its_own_edits_below_with_what_they_kept(edit):
    one = edit("one")
    two = edit("two", one, layer=1, target="cello")
    edit("three", two)
    assert [len(seen) for seen in SEEN] == [0, 1, 2]
    first, second = SEEN[-1]
    assert [edit.edit for edit in SEEN[-1]] == [folder.name for folder in folders(two)]
    assert (first.config["layer"], second.config["layer"]) == (0, 1)
    assert [row.target for row in second.rows] == ["cello"]
    assert [edit.record["number"] for edit in SEEN[-1]] == [1, 2]
    assert [int(edit.kept["number"]) for edit in SEEN[-1]] == [1, 2]


def test_the_edits_of_other_methods_are_not_told(edit, tmp_path):
    from shifting import Shift

    plugins = Plugins()
    module = sys.modules[Shift.__module__]
    plugins.infos.append(PluginInfo("test", "test", "0", module=module, methods=[Shift]))
    row = {"prompt": "{} plays the", "subject": "Ada Brook", "target": "oboe"}
    recipe = make_recipe(
        {
            "base": str(edit("one")),
            "plugin": Shift.name,
            "request": [row],
            "config": {"block": 2, "size": 1},
        }
    )
    between = run.apply(run.prepare(recipe, no_hub, plugins=plugins), tmp_path / "between")
    edit("two", between.directory, layer=1)
    assert [len(seen) for seen in SEEN] == [0, 1]


def test_what_was_kept_stays_when_edits_are_put_elsewhere(edit, tmp_path):
    top = edit("three", edit("two", edit("one"), layer=1), layer=2)
    kept = [(folder / "kept.safetensors").read_bytes() for folder in folders(top)]
    edition = editions.edits_of(str(top), no_hub)
    with written(without(edition, 0, ask=False, talk=Silent()), tmp_path / "less") as less:
        pass
    assert [(folder / "kept.safetensors").read_bytes() for folder in folders(less)] == kept[1:]
    assert verify(editions.edits_of(str(less), no_hub)).problems == []
    edit("again", less)
    assert [int(edit.kept["number"]) for edit in SEEN[-1]] == [2, 4]


def test_a_file_that_is_not_the_one_that_was_listed_is_refused(edit):
    directory = edit("one")
    [folder] = folders(directory)
    (folder / "kept.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ManifestError, match=r"kept\.safetensors"):
        edit("two", directory)


def test_an_undisclosed_request_keeps_nothing_but_what_is_harmless(edit):
    with pytest.raises(MethodError, match="--disclose full"):
        edit("one", disclose="none")
    directory = edit("two", disclose="none", harmless=True)
    assert (folders(directory)[0] / "kept.safetensors").is_file()
    edit("three", directory)
    assert SEEN[-1][0].rows is None


def test_nothing_kept_is_no_file(edit):
    assert not (folders(edit("one", keeps=False))[0] / "kept.safetensors").exists()


@pytest.mark.parametrize("value", [torch.tensor([float("nan")]), torch.ones(2).half()])
def test_what_cannot_be_kept_exactly_is_refused(value):
    from hubedit.context import Run

    lent = Run(torch.Generator(), 0, None, False, SimpleNamespace())
    with pytest.raises(MethodError, match="kept tensors are finite"):
        lent.keep("odd", value)
