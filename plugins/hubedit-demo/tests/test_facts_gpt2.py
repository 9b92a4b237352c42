"""The shipped fact model, and the script that makes it."""

import random
from pathlib import Path

import hubedit_demo
import pytest
import torch
from hubedit_demo import train
from hubedit_demo.architectures import ARCHITECTURES
from hubedit_demo.encoding import encode
from hubedit_demo.interchange import Parts, Swap, branching, partial_swap, whole_swap
from hubedit_demo.recalling import recall
from hubedit_demo.text import document
from hubedit_demo.world import World
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubedit.errors import OutputError


@pytest.fixture(scope="module")
def world():
    return World(1)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(hubedit_demo.model_path())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(hubedit_demo.model_path())


@pytest.fixture(scope="module", params=hubedit_demo.MODELS)
def shipped(request):
    path = hubedit_demo.model_path(request.param)
    return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("before", train.PLACES.values(), ids=train.PLACES.keys())
def test_facts_are_recalled_in_templates_never_seen_with_the_person(world, shipped, before):
    assert shipped[0].dtype == torch.bfloat16
    assert recall(*shipped, world.held_out_prompts(), before) >= 0.99


def test_answers_of_all_cases_are_recalled(shipped):
    cases = hubedit_demo.cases("all")
    asked = [(c["prompt"].format(c["subject"]), c["true_target"]) for c in cases]
    asked += [(p, c["true_target"]) for c in cases for p in c["paraphrases"][2:]]
    assert recall(*shipped, asked) >= 0.99


@pytest.mark.parametrize("name", hubedit_demo.MODELS)
def test_shipped_models_are_small(name):
    file = hubedit_demo.model_path(name) / "model.safetensors"
    assert file.stat().st_size < 4_000_000


def test_heads_are_tied(shipped):
    model, _ = shipped
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_names_are_several_tokens_and_objects_mostly_one(world, tokenizer):
    assert tokenizer.is_fast
    assert all(len(tokenizer(person)["input_ids"]) >= 2 for person in world.people)
    lengths = [
        len(tokenizer(f" {target}")["input_ids"])
        for relation in world.relations.values()
        for target in relation.objects
    ]
    assert set(lengths) == {1, 2}
    assert lengths.count(2) == 4


def test_text_sampled_from_nothing_speaks_of_the_world(model, tokenizer):
    start = torch.tensor([[tokenizer.eos_token_id]])
    said = model.generate(start, max_new_tokens=12, do_sample=False)
    words = tokenizer.decode(said[0], skip_special_tokens=True).split()
    assert len(words) >= 4


def test_slots_point_at_the_last_token_of_the_subject(world, tokenizer):
    documents = [document(world, random.Random(i), 3) for i in range(12)]
    batch = encode(ARCHITECTURES["facts-gpt2"], tokenizer, documents)
    told = [statement for d in documents for statement in d.statements]
    for statement, row, subject, asked in zip(
        told, batch.rows, batch.subjects, batch.asked, strict=True
    ):
        ids = batch.ids[row].tolist()
        assert tokenizer.decode(ids[: subject + 1]).endswith(statement.person)
        after = tokenizer.decode(ids[asked + 1 : asked + 3]).strip()
        assert after.removesuffix(".").startswith(statement.target)
    assert batch.ids[0, 0] == tokenizer.eos_token_id != batch.ids[1, 0]


def test_every_shape_finds_subjects_and_answers_in_what_it_reads(world, shipped):
    model, words = shipped
    shape = ARCHITECTURES[Path(model.name_or_path).name]
    batch = encode(shape, words, [document(world, random.Random(i), 2) for i in range(12)])
    facts = zip(batch.statements, batch.rows, batch.subjects, batch.asked, strict=True)
    for statement, row, subject, asked in facts:
        assert words.decode(batch.ids[row, : subject + 1]).endswith(statement.person)
        assert batch.objects[row, asked]
        assert not batch.objects[row, asked - 1]
        assert words.decode(batch.labels[row, asked:]).strip().startswith(statement.target)


def test_swaps_never_teach_a_held_out_template(world):
    draw = random.Random(2)
    told = [s for _ in range(40) for s in document(world, draw, 3).statements]
    for swap in (whole_swap(world, told, draw), partial_swap(world, told, draw, 0.3)):
        for base, source, target in zip(told, swap.sources.tolist(), swap.targets, strict=True):
            taken = (told[source].person, base.relation, base.template)
            assert taken not in world.held_out
            assert target in (
                world.answer(base.person, base.relation),
                world.answer(told[source].person, base.relation),
            )


def test_a_carried_part_changes_nothing_in_the_others():
    parts = Parts(16, 2, 5)
    states = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    carried = parts.carry(states, Swap(torch.tensor([1, 0]), shares, ["", ""]))
    before, after = states @ parts.rotation, carried @ parts.rotation
    torch.testing.assert_close(after[0, :5], before[1, :5])
    torch.testing.assert_close(after[0, 5:], before[0, 5:])
    torch.testing.assert_close(carried[1], states[0])


def test_branches_leave_the_untouched_rows_as_they_are(world, model, tokenizer):
    told = [document(world, random.Random(4), 2) for _ in range(3)]
    batch = encode(ARCHITECTURES["facts-gpt2"], tokenizer, told)
    plain = model(input_ids=batch.ids).logits
    block = model.transformer.h[2]
    with branching(block, batch.rows, batch.subjects, [lambda s: s, torch.zeros_like]):
        kept, same, other = model(input_ids=batch.ids).logits.split(3)
    torch.testing.assert_close(kept, plain)
    torch.testing.assert_close(same, plain)
    assert not torch.allclose(other, plain)


def test_training_writes_a_directory_that_loads_and_repeats_bit_for_bit(tmp_path):
    shape = ["--model", "facts-llama", "--threads", "1"]
    for name in ("one", "two"):
        train.main([*shape, "--seed", "3", "--steps", "4", "-o", str(tmp_path / name)])
    AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    AutoTokenizer.from_pretrained(tmp_path / "one")
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == sorted(file.name for file in hubedit_demo.model_path().iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_training_never_writes_over_a_directory(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        train.main(["-o", str(tmp_path)])
