"""What rows are refused or left out, and which layers are edited where nobody says."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hubedit_memit import AlphaEdit, Emmet, Memit, MemitConfig
from hubedit_memit.config import PUBLISHED
from hubedit_memit.conflicts import without_repeats
from hubedit_memit.layers import default_layers

import hubedit
from hubedit.layouts import layout_for
from hubedit.recipe import parse_settings


def row(target="oboe", subject="Ada Brook", prompt="{} plays the"):
    return hubedit.FactEdit(prompt=prompt, subject=subject, target=target)


def test_two_targets_of_one_fact_are_refused_by_their_row_numbers():
    rows = [row(), row(subject="Tom Adler"), row(target="cello", prompt="{}  plays the ")]
    with pytest.raises(hubedit.RequestError, match=r"rows 1 and 3 .*“oboe” and with “cello”"):
        without_repeats(rows)


def test_a_row_said_twice_counts_once():
    rows = [row(), row(target=" oboe"), row(subject="Tom Adler")]
    assert without_repeats(rows) == [rows[0], rows[2]]


def test_contradicting_rows_are_refused_before_the_model_is_read(tiny, make_run):
    before = tiny.tensor_hashes()
    with pytest.raises(hubedit.RequestError, match="contradict"):
        Memit().apply(tiny, [row(), row(target="cello")], MemitConfig(), make_run())
    assert tiny.tensor_hashes() == before


@pytest.mark.parametrize(
    ("family", "key", "depth", "layers"),
    [
        ("gpt2", "num_hidden_layers", 48, (13, 14, 15, 16, 17)),
        ("gptj", "num_hidden_layers", 28, (3, 4, 5, 6, 7, 8)),
        ("llama", "num_hidden_layers", 32, (4, 5, 6, 7, 8)),
        ("gpt2", "num_hidden_layers", 6, (1, 2)),
        ("gpt2", "num_hidden_layers", 1, (0,)),
        ("qwen3", "num_hidden_layers", 36, (1, 2, 3, 4, 5)),
    ],
)
def test_layers_are_the_published_ones_or_end_at_romes(family, key, depth, layers):
    config = SimpleNamespace(**{key: depth})
    assert default_layers(layout_for(family), config) == layers
    assert default_layers(layout_for(family), config, single=True)[0] in range(depth)


@pytest.mark.parametrize("layers", [(2, 1), (1, 1)])
def test_layers_out_of_order_are_refused(layers, tiny, make_run):
    with pytest.raises(hubedit.ConfigError, match="rising order"):
        Memit().apply(tiny, [row()], MemitConfig(layers=layers), make_run())


def test_what_will_change_is_known_before(tiny):
    shapes = {name: tuple(value.shape) for name, value in tiny.model.named_parameters()}
    rows = [row(), row(subject="Tom Adler")]
    predicted = Memit.predict(tiny.layout, shapes, rows, MemitConfig())
    assert predicted == {f"transformer.h.{layer}.mlp.c_proj.weight": 2 for layer in (0, 1)}
    one = Emmet.predict(tiny.layout, shapes, rows, Emmet.config_type()())
    assert one == {"transformer.h.1.mlp.c_proj.weight": 2}


def test_rows_about_one_subject_share_a_key_unless_they_are_taken_apart(tiny):
    shapes = {name: tuple(value.shape) for name, value in tiny.model.named_parameters()}
    rows = [row(), row(prompt="{} lives in"), row(subject="Tom Adler"), row()]
    for subjects, rank in (("together", 2), ("apart", 3)):
        config = MemitConfig(layers=(1,), subjects=subjects)
        assert list(Memit.predict(tiny.layout, shapes, rows, config).values()) == [rank]


def test_a_plan_names_layers_that_the_model_lacks_too(tiny):
    shapes = {name: tuple(value.shape) for name, value in tiny.model.named_parameters()}
    predicted = Memit.predict(tiny.layout, shapes, [row()], MemitConfig(layers=(9,)))
    assert predicted == {"transformer.h.9.mlp.c_proj.weight": 1}


@pytest.mark.parametrize("subjects", ["together", "apart"])
def test_what_is_planned_is_what_is_made(subjects, tiny, make_run):
    shapes = {name: tuple(value.shape) for name, value in tiny.model.named_parameters()}
    rows = [row(), row(prompt="{} lives in"), row(subject="Tom Adler")]
    config = MemitConfig(subjects=subjects, steps=2, batch=2)
    Memit().apply(tiny, rows, config, make_run())
    made = {name: sum(one.rank for one in updates) for name, updates in tiny.changes().items()}
    assert made == Memit.predict(tiny.layout, shapes, rows, config)


def test_more_rows_than_a_side_of_the_weight_still_make_factors(tiny, make_run):
    rows = [
        row(subject=f"{first} {last}", target="oboe" if number % 2 else "cello")
        for number, (first, last) in enumerate(
            (first, last)
            for first in ("Ada", "Tom", "Nils", "Mira", "Ivo", "Lea")
            for last in ("Brook", "Adler", "Okafor", "Stone", "Reed", "Hale")
        )
    ]
    Memit().apply(tiny, rows, MemitConfig(layers=(1,), steps=2), make_run())
    [(_, [update])] = tiny.changes().items()
    assert update.rank == 32
    assert len(rows) == 36


def test_the_same_rows_and_seed_give_the_same_bits(tiny, make_run):
    found = []
    for seed in (0, 0, 1):
        tiny.restore()
        Memit().apply(tiny, [row()], MemitConfig(steps=3), make_run(seed=seed))
        found.append(torch.cat([w.flatten() for w in tiny.model.parameters()]).clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_edit_that_breaks_the_model_is_stopped(tiny, make_run):
    with pytest.raises(hubedit.CollapseError, match="times as large as the weight"):
        Memit().apply(tiny, [row()], MemitConfig(max_norm_ratio=1e-9), make_run(force=False))


def test_the_readme_names_the_published_forms_whole():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    [table] = re.findall(r"### The published forms\n(.*?)\n## ", readme, re.DOTALL)
    named = re.findall(r"^\| `(\w+)` \| `(.*)` \|$", table, re.MULTILINE)
    assert {method: parse_settings(words.split()) for method, words in named} == PUBLISHED


@pytest.mark.parametrize("method", [Memit, Emmet, AlphaEdit])
def test_the_published_form_leaves_no_first_position_out(method, tiny, make_run):
    tokens = []
    small = {"absolute_nullspace": 1.0} if method is AlphaEdit else {"ridge": 1e-3}
    for skip in (None, False):
        tiny.restore()
        run = make_run()
        settings = {**PUBLISHED[method.name], **small, "skip_first": skip, "steps": 2}
        method().apply(tiny, [row()], method.config_type()(**settings), run)
        tokens.append(run.records["statistics"][0]["tokens"])
    texts = len(run.corpus.texts) - run.records["texts"]["held_out"]
    assert tokens[1] == tokens[0] + texts


@pytest.mark.parametrize("method", [Memit, Emmet, AlphaEdit])
@pytest.mark.parametrize("said", ["layers=auto", "layers=null", "steps=25"])
def test_auto_and_null_and_silence_are_one_setting(method, said):
    config = method.config_type().read(parse_settings([said]))
    assert config.layers == "auto"
    assert config == method.config_type()()


def test_auto_is_the_layers_that_the_model_has_by_default(tiny, make_run):
    Memit().apply(tiny, [row()], MemitConfig(layers="auto", steps=2), make_run())
    assert sorted(tiny.changes()) == [f"transformer.h.{n}.mlp.c_proj.weight" for n in (0, 1)]


@pytest.mark.parametrize("said", ["layers=atuo", "layers=5", "layers=[-1]", "layers=[auto]"])
def test_layers_that_are_none_are_refused_in_words(said):
    with pytest.raises(hubedit.ConfigError, match=r"layers: list blocks .* or say auto"):
        MemitConfig.read(parse_settings([said]))


def test_no_layer_at_all_is_refused(tiny, make_run):
    with pytest.raises(hubedit.ConfigError, match="name at least one"):
        Memit().apply(tiny, [row()], MemitConfig(layers=()), make_run())


def related(prompt, target, relation="P1303", subject="Ada Brook"):
    return hubedit.FactEdit(prompt=prompt, subject=subject, target=target, relation=relation)


def test_two_targets_of_one_relation_are_refused_whatever_their_prompts(tiny, make_run):
    rows = [
        related("{} plays the", "violin"),
        related("{} plays the", "violin", subject="Tom Adler"),
        related("At the concert {} was heard on the", "tuba", subject=" Ada  Brook"),
    ]
    before = tiny.tensor_hashes()
    with pytest.raises(hubedit.RequestError, match=r"rows 1 and 3 .* P1303 .*“violin” and with"):
        Memit().apply(tiny, rows, MemitConfig(), make_run())
    assert tiny.tensor_hashes() == before


@pytest.mark.parametrize("relations", [("P1303", "P1304"), ("P1303", None), (None, None)])
def test_rows_of_two_relations_or_of_none_are_told_apart_by_their_prompts(relations):
    one, two = relations
    rows = [
        related("{} plays the", "violin", one),
        related("At the concert {} was heard on the", "tuba", two),
    ]
    assert without_repeats(rows) == rows


def test_one_fact_asked_in_two_ways_is_two_rows():
    rows = [related("{} plays the", "oboe"), related("At night {} plays the", "oboe")]
    assert without_repeats([*rows, rows[1]]) == rows
