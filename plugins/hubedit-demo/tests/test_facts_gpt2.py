"""The shipped fact model, and the script that makes it."""

import random

import hubedit_demo
import pytest
import torch
from hubedit_demo import train
from hubedit_demo.architectures import ARCHITECTURES
from hubedit_demo.encoding import encode
from hubedit_demo.interchange import Parts, Swap, branching, partial_swap, whole_swap
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
    batch = encode(ARCHITECTURES["facts-gpt2"], tokenizer, documents, random.Random(0))
    told = [statement for d in documents for statement in d.statements]
    for statement, row, subject, asked in zip(
        told, batch.rows, batch.subjects, batch.asked, strict=True
    ):
        ids = batch.ids[row].tolist()
        assert tokenizer.decode(ids[: subject + 1]).endswith(statement.person)
        after = tokenizer.decode(ids[asked + 1 : asked + 3]).strip()
        assert after.removesuffix(".").startswith(statement.target)
    assert batch.ids[0, 0] == tokenizer.eos_token_id != batch.ids[1, 0]


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
    batch = encode(ARCHITECTURES["facts-gpt2"], tokenizer, told, random.Random(0))
    plain = model(input_ids=batch.ids).logits
    block, later = model.transformer.h[2], model.transformer.h[3:]
    with branching(block, later, batch.rows, batch.subjects, [lambda s: s, torch.zeros_like]):
        kept, same, other = model(input_ids=batch.ids).logits.split(3)
    torch.testing.assert_close(kept, plain)
    torch.testing.assert_close(same, plain)
    assert not torch.allclose(other, plain)


def test_training_never_writes_over_a_directory(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        train.main(["-o", str(tmp_path)])
