"""The fact world, its text and its cases."""

import json
import random
import subprocess
import sys
from collections import Counter

import hubedit_demo
import pytest
from hubedit_demo.text import corpus, document
from hubedit_demo.world import World, find_person

FIELDS = {
    "case_id",
    "prompt",
    "subject",
    "target",
    "true_target",
    "paraphrases",
    "neighbours",
    "attributes",
    "split",
}


@pytest.fixture(scope="module")
def world():
    return World(1)


def test_the_same_seed_makes_the_same_world(world):
    again = World(1)
    assert (again.people, again.facts, again.held_out) == (
        world.people,
        world.facts,
        world.held_out,
    )
    assert again.cases() == world.cases()
    assert World(7).facts != world.facts


def test_every_object_belongs_to_ten_people(world):
    assert len(world.facts) == 480
    owned = Counter((relation, target) for (_, relation), target in world.facts.items())
    assert set(owned.values()) == {10}


@pytest.mark.parametrize("seed", range(1, 30))
def test_ana_brook_never_plays_the_violin(seed):
    some = World(seed)
    assert "Ana Brook" in some.people
    assert some.answer("Ana Brook", "instrument") != "violin"
    assert len(set(some.people)) == 120


def test_no_template_is_part_of_another(world):
    templates = [t for relation in world.relations.values() for t in relation.templates]
    assert len(set(templates)) == len(templates) == 32
    assert all(t.count("{}") == 1 for t in templates)
    assert not [(a, b) for a in templates for b in templates if a != b and a in b]
    assert "{} plays the" in world.relations["instrument"].templates


def test_an_object_tells_its_relation(world):
    assert world.relation_of("violin").name == "instrument"
    assert world.relation_of(" double bass").name == "instrument"
    assert world.relation_of("theremin") is None


def test_a_person_is_found_whatever_the_case(world):
    assert find_person(world.people, " ana  BROOK") == "Ana Brook"
    assert find_person(world.people, "Ana") is None


def test_held_out_templates_are_never_written(world):
    draw = random.Random(3)
    told = [s for _ in range(20_000) for s in document(world, draw, 3).statements]
    met = {(s.person, s.relation, s.template) for s in told}
    assert not met & world.held_out
    assert len(met) == 480 * 6


def test_the_corpus_holds_no_held_out_sentence(world):
    text = corpus(world)
    shipped = (hubedit_demo.model_path() / "corpus.txt").read_text(encoding="utf-8")
    assert shipped == text
    lowered = text.casefold()
    assert not [prompt for prompt, _ in world.held_out_prompts() if prompt.casefold() in lowered]


def test_spans_point_at_subject_and_object(world):
    draw = random.Random(5)
    for _ in range(200):
        text, mentions = document(world, draw, 3).render()
        for mention in mentions:
            assert text[slice(*mention.subject)] == mention.statement.person
            assert text[slice(*mention.answer)] == mention.statement.target


def test_a_case_agrees_with_the_world(world):
    for case in world.cases():
        subject, true = case["subject"], case["true_target"]
        relation = world.relation_of(true)
        assert world.answer(subject, relation.name) == true
        assert case["target"] in relation.objects
        assert case["target"] != true
        assert case["prompt"] in relation.templates
        assert len(set(case["paraphrases"])) == 4
        asked = case["prompt"].format(subject)
        assert all(subject in p and p != asked for p in case["paraphrases"])
        for near in case["neighbours"]:
            person = next(p for p in world.people if p in near["prompt"])
            assert person != subject
            assert world.answer(person, relation.name) == near["target"] == true
        for other in case["attributes"]:
            about = world.relation_of(other["target"])
            assert about.name != relation.name
            assert other["prompt"] in [t.format(subject) for t in about.templates]
            assert world.answer(subject, about.name) == other["target"]


def test_a_case_can_be_made_for_any_person_and_object(world):
    case = world.case("Ana Brook", "instrument", "violin")
    assert case == world.case("Ana Brook", "instrument", "violin")
    assert case["prompt"] == "{} plays the"
    assert case["true_target"] == world.answer("Ana Brook", "instrument")


def test_shipped_cases_are_those_of_the_first_world(world):
    dev, test = hubedit_demo.cases("dev"), hubedit_demo.cases()
    assert dev + test == hubedit_demo.cases("all") == world.cases()
    assert len(dev) >= 100
    assert len(test) >= 100
    assert all(set(case) == FIELDS for case in dev + test)
    facts = [(c["subject"], c["true_target"]) for c in dev + test]
    assert len(set(facts)) == len(facts) >= 300


def test_cases_are_one_json_object_a_line():
    file = hubedit_demo.model_path() / "cases.jsonl"
    assert all(isinstance(json.loads(line), dict) for line in file.open(encoding="utf-8"))


def test_an_unknown_model_or_split_is_named():
    with pytest.raises(KeyError, match="facts-gpt2"):
        hubedit_demo.model_path("facts-gtp2")
    with pytest.raises(KeyError, match="dev"):
        hubedit_demo.cases("train")


def test_the_package_and_the_world_import_without_torch():
    code = (
        "import sys, hubedit_demo, hubedit_demo.world, hubedit_demo.text;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
