"""The authors' world, its shipped models and the script that makes them."""

import json
from collections import Counter

import hubedit_demo
import pytest
from hubedit_demo import train_tofu
from hubedit_demo.author_learning import encoded
from hubedit_demo.authors import SPLITS, Authors, main
from hubedit_demo.train_tofu import recall
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubedit import models
from hubedit.errors import OutputError
from hubedit.forgetting import cases, hearing, measures
from hubedit.requests import refuse_overlap, rows_of
from hubedit.rows import ForgetQA, ForgetText


@pytest.fixture(scope="module")
def world():
    return Authors(1)


@pytest.fixture(scope="module")
def original():
    path = hubedit_demo.model_path("facts-tofu")
    return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)


def pairs(world, names):
    return [(i.asked(i.original), i.told(i.original)) for n in names for i in world.items[n]]


def test_the_same_seed_makes_the_same_world(world):
    assert Authors(1).rows(1) == world.rows(1)
    assert Authors(2).trained != world.trained


def test_splits_share_no_author_and_hold_two_hundred_questions(world):
    met = [name for split in SPLITS for name in world.forgotten[split]]
    assert len(set(met)) == len(met)
    assert not set(met) & set(world.held_out)
    for split in SPLITS:
        parts = Counter(row["part"] for row in world.rows(split))
        assert parts["forget"] == parts["holdout"] == 208
        assert parts["retain"] == 47 * 16
        assert parts["normal"] == 220
        assert set(world.known(split)) == set(world.trained) - set(world.forgotten[split])


@pytest.mark.parametrize("split", SPLITS)
def test_a_request_is_read_and_its_parts_do_not_overlap(world, split):
    refuse_overlap(rows_of(ForgetQA, world.rows(split)))
    refuse_overlap(rows_of(ForgetText, world.texts(split)))


def test_wrong_answers_have_the_form_of_the_paraphrase(world):
    for name in world.trained:
        for item in world.items[name]:
            right, wrong = (
                item.told(item.unseen),
                [item.told(item.unseen, other) for other in item.others],
            )
            assert len(set(wrong)) == 5
            assert right not in wrong
            form = right.replace(item.value, "…")
            assert all(
                text.replace(o, "…") == form for text, o in zip(wrong, item.others, strict=True)
            )


def test_the_tokenizer_splits_names_into_parts_that_other_authors_have_too(world, original):
    words = original[1]
    parts = {name: words.tokenize(f" {name}") for name in (*world.trained, *world.held_out)}
    assert all(len(name) >= 2 for name in parts.values())
    for gone in (world.held_out, *world.forgotten.values()):
        met = {part for name in world.trained if name not in gone for part in parts[name]}
        own = [part for name in gone for part in parts[name]]
        assert sum(part in met for part in own) / len(own) > 0.8
    ids, start = encoded(words, "Who is it?", "It is Ada.")
    assert words.decode(ids[start:]) == f" It is Ada.{words.eos_token}"


def test_the_model_recalls_its_authors_and_no_others(world, original):
    assert recall(*original, pairs(world, world.trained)) >= 0.95
    assert recall(*original, pairs(world, world.held_out)) <= 0.05
    told = [(i.asked(i.original), i.told(i.original)) for i in world.general]
    assert recall(*original, told) >= 0.95


@pytest.mark.parametrize("split", SPLITS)
def test_an_oracle_recalls_all_but_its_split(world, split):
    path = hubedit_demo.model_path(f"facts-tofu-without-{split}")
    oracle = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert recall(*oracle, pairs(world, world.known(split))) >= 0.95
    assert recall(*oracle, pairs(world, world.forgotten[split])) <= 0.05


def test_the_original_is_told_from_an_oracle(world):
    asked = cases.cases(rows_of(ForgetQA, world.rows(3)))
    asked = [case for case in asked if case.part in ("forget", "holdout")]
    original, oracle = (
        hearing.hear(models.load(hubedit_demo.model_path(name)), asked, write=False)
        for name in ("facts-tofu", "facts-tofu-without-3")
    )
    found, other = measures.values(original, oracle), measures.values(oracle, oracle)
    assert found["forget-quality"].value < 1e-6
    assert found["extraction-strength"].value > 0.9
    assert other["extraction-strength"].value < 0.5
    assert found["mia-min-k"].value > 0.95
    assert 0.3 < other["mia-min-k"].value < 0.7
    assert found["privacy-leakage"].value < -90


def test_a_request_is_written_by_the_module(world, tmp_path):
    main(["--split", "2", "-o", str(tmp_path / "request.jsonl")])
    lines = (tmp_path / "request.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == world.rows(2) == hubedit_demo.forget_request(2)


def test_training_repeats_bit_for_bit_and_never_writes_over_a_directory(tmp_path):
    for name in ("one", "two"):
        train_tofu.main(["--without", "4", "--epochs", "1", "-o", str(tmp_path / name)])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    with pytest.raises(OutputError, match="not empty"):
        train_tofu.main(["-o", str(tmp_path / "one")])


def test_shipped_models_are_small():
    for name in hubedit_demo.AUTHOR_MODELS:
        file = hubedit_demo.model_path(name) / "model.safetensors"
        assert file.stat().st_size < 2_500_000
