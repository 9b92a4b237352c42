"""What AlphaEdit knows of the edits below in the stack, and what it leaves for those above."""

from __future__ import annotations

import pytest
import torch
from hubedit_memit import AlphaEdit, AlphaEditConfig, Memit, MemitConfig
from hubedit_memit.conflicts import replaced
from hubedit_memit.keys import Layer
from hubedit_rome.site import Site

import hubedit

FIRST = [
    hubedit.FactEdit(prompt="{} plays the", subject="Ada Brook", target="oboe"),
    hubedit.FactEdit(prompt="{} lives in", subject="Tom Adler", target="Ghent"),
]
SECOND = [hubedit.FactEdit(prompt="{} works as a", subject="Mira Castellanos", target="glazier")]
CONFIG = AlphaEditConfig(layers=(0, 1), steps=5, nullspace=0.5)


def after(run, rows, config=CONFIG):
    """What the host tells of a run to the one after it."""
    settings = config.model_dump(mode="json")
    return hubedit.Earlier("0001-alphaedit-00000000", settings, rows, run.records, run.kept)


@pytest.fixture
def first(tiny, make_run):
    run = make_run()
    AlphaEdit().apply(tiny, FIRST, CONFIG, run)
    tiny.restore()
    return run


def second(model, run, rows=SECOND, config=CONFIG):
    """ΔW of each layer, [out, in], of another edit; the model is as before afterwards."""
    AlphaEdit().apply(model, rows, config, run)
    made = {
        name: torch.from_numpy(sum(update.left @ update.right for update in updates)).T
        for name, updates in model.changes().items()
    }
    model.restore()
    return made


def test_an_edit_leaves_the_keys_of_its_rows_by_their_subjects(first):
    assert first.records["keys"] == ["Ada Brook", "Tom Adler"]
    assert {name: kept.shape for name, kept in first.kept.items()} == {
        "keys.0": (64, 2),
        "keys.1": (64, 2),
    }


def test_the_keys_of_edits_below_are_answered_as_before(tiny, make_run, first):
    alone = second(tiny, make_run())
    run = make_run()
    run.earlier = [after(first, FIRST)]
    told = second(tiny, run)
    for layer in (0, 1):
        name, keys = f"transformer.h.{layer}.mlp.c_proj.weight", first.kept[f"keys.{layer}"]
        assert (told[name] @ keys).norm() < 0.5 * (alone[name] @ keys).norm()


def test_a_key_that_is_written_again_is_not_held(tiny, make_run, first):
    again = [FIRST[0].model_copy(update={"target": "cello"})]
    run = make_run()
    run.earlier = [after(first, FIRST)]
    layer = Layer(Site.find(tiny, 0), lambda keys, earlier: keys)
    layer.before = dict(zip(first.records["keys"], first.kept["keys.0"].T, strict=True))
    assert layer.earlier(["Ada Brook"]).shape == (64, 1)
    assert layer.earlier(["Ada Brook", "Tom Adler"]) is None
    assert second(tiny, run, again)


def test_keys_that_rows_have_apart_do_not_replace_each_other(tiny, make_run):
    config = AlphaEditConfig(layers=(1,), steps=3, subjects="apart")
    run = make_run()
    AlphaEdit().apply(tiny, FIRST, config, run)
    tiny.restore()
    told = make_run()
    told.earlier = [after(run, FIRST, config)]
    alone = second(tiny, make_run(), config=config)
    held = second(tiny, told, config=config)
    [name] = held
    keys = run.kept["keys.1"]
    assert (held[name] @ keys).norm() < 0.5 * (alone[name] @ keys).norm()


def test_an_undisclosed_request_leaves_no_keys_and_says_so(tiny, make_run):
    run = make_run()
    run.disclosed = False
    AlphaEdit().apply(tiny, FIRST, CONFIG, run)
    assert run.kept == {}
    assert "keys" not in run.records
    assert "not disclosed" in run.messages[-1]


def test_an_edit_below_that_kept_nothing_is_named(tiny, make_run):
    run = make_run()
    run.earlier = [hubedit.Earlier("0001-alphaedit-00000000", {}, None, {}, {})]
    second(tiny, run)
    assert any("0001-alphaedit-00000000 kept no keys" in message for message in run.messages)


def test_other_methods_leave_nothing(tiny, make_run):
    run = make_run()
    Memit().apply(tiny, FIRST, MemitConfig(layers=(1,), steps=2), run)
    assert run.kept == {}


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((2,), "0001-alphaedit-00000000 kept no keys of layer 2, but of 0, 1: this edit may undo"),
        ((1, 2), "0001-alphaedit-00000000 kept no keys of layer 2: this edit may undo"),
        ((0, 1), None),
    ],
)
def test_layers_that_an_edit_below_kept_no_keys_of_are_named(layers, said, tiny, make_run, first):
    run = make_run()
    run.earlier = [after(first, FIRST)]
    second(tiny, run, config=AlphaEditConfig(layers=layers, steps=3))
    warned = [message for message in run.messages if "kept no keys" in message]
    assert len(warned) == (said is not None)
    assert all(message.startswith(said) for message in warned)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"prompt": "{} plays the"}, False),
        ({"relation": "P1303", "target": "tuba"}, False),
        ({"relation": "P1303", "target": " oboe"}, True),
        ({"relation": "P551", "target": "tuba"}, True),
    ],
)
def test_what_an_edit_below_said_counts_until_a_row_replaces_it(changes, kept):
    old = FIRST[0].model_copy(update={"relation": "P1303"})
    now = {"prompt": "At night {} is heard on the", "target": "tuba", **changes}
    assert replaced(old, [old.model_copy(update={"relation": None, **now})]) is not kept
