"""Ten people forgotten in the demo's fact world, on the model rebuilt from what is shipped."""

from __future__ import annotations

import hubedit_demo
import pytest
import torch
from hubedit_demo.recalling import recall
from hubedit_unlearn import GradDiff

import hubedit
from hubedit import recipe, run
from hubedit.plugins import PluginInfo, Plugins

WORLD = hubedit_demo.World(1)
FORGOTTEN = WORLD.people[60:70]
OTHERS = [person for person in WORLD.people if person not in FORGOTTEN]


@pytest.fixture(scope="module", params=["full", "lora"])
def edited(request, tmp_path_factory, forgetting):
    """What an ordinary run writes with default settings, and the model it rebuilds."""
    import hubedit_unlearn

    plugins = Plugins()
    plugins.infos.append(
        PluginInfo("unlearn", "under-test", "0", module=hubedit_unlearn, methods=[GradDiff])
    )
    keys = {
        "base": str(hubedit_demo.model_path()),
        "plugin": "graddiff",
        "request": forgetting.request(WORLD, FORGOTTEN, OTHERS),
        "config": {"adaptation": request.param},
        "threads": 1,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBEDIT_HOME", str(tmp_path_factory.mktemp("home")))
        job = run.prepare(recipe.make_recipe(keys), forgetting.no_hub, plugins=plugins)
        applied = run.apply(job, tmp_path_factory.mktemp("edits") / "edit")
        model, tokenizer = hubedit.load(str(applied.directory))
    return applied, model, tokenizer


def test_the_people_are_forgotten_in_templates_that_the_request_never_used(edited, forgetting):
    _, model, tokenizer = edited
    assert model.dtype == torch.bfloat16
    assert recall(model, tokenizer, forgetting.asked(WORLD, FORGOTTEN, (0, 1, 2, 3))) < 0.2
    assert recall(model, tokenizer, forgetting.asked(WORLD, FORGOTTEN, (4, 5, 6, 7))) < 0.2


def test_the_other_people_are_still_known(edited, forgetting):
    _, model, tokenizer = edited
    assert recall(model, tokenizer, forgetting.asked(WORLD, OTHERS)) >= 0.95


def test_the_manifest_tells_figures_and_nothing_of_the_people(edited):
    applied, _, _ = edited
    figures = applied.manifest.record["unlearning"]
    assert figures["reached"]
    assert figures["retain_perplexity_ratio"] <= 1.05
    assert figures["forget_probability"] < 0.1 < 0.9 < figures["forget_probability_before"]
    written = applied.manifest.model_dump_json()
    for person in FORGOTTEN:
        assert person not in written
        assert person.split()[1] not in written


def test_embeddings_are_not_among_the_changed_tensors(edited):
    applied, _, _ = edited
    names = [tensor.name for tensor in applied.manifest.tensors]
    assert names
    assert all(".h." in f".{name}" for name in names)
    assert not any("wte" in name or "wpe" in name for name in names)
