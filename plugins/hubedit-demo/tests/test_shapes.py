"""Fact models of every shape: what they recall, what they are taught from, and how they load."""

import random
from functools import partial

import hubedit_demo
import pytest
import torch
from hubedit_demo import train
from hubedit_demo.architectures import ARCHITECTURES
from hubedit_demo.encoding import UNSCORED, encode
from hubedit_demo.interchange import branching, whole_swap
from hubedit_demo.recalling import recall
from hubedit_demo.text import document, vocabulary_text
from hubedit_demo.world import World
from transformers import AutoTokenizer

from hubedit import models

ENCODERS = ("facts-bert", "facts-t5")


@pytest.fixture(scope="module")
def world():
    return World(1)


def read(name, path):
    """A model and its tokenizer as they are stored."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = type(ARCHITECTURES[name].build(tokenizer)).from_pretrained(path)
    return model, tokenizer


@pytest.fixture(scope="module", params=hubedit_demo.MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def shipped(name):
    return read(name, hubedit_demo.model_path(name))


@pytest.mark.parametrize("before", train.PLACES.values(), ids=train.PLACES.keys())
def test_facts_are_recalled_in_templates_never_seen_with_the_person(world, shipped, before):
    assert shipped[0].dtype == torch.bfloat16
    assert recall(*shipped, world.held_out_prompts(), before) >= 0.99


def test_answers_of_all_cases_are_recalled(name, shipped):
    cases = hubedit_demo.cases("all", name)
    asked = [(c["prompt"].format(c["subject"]), c["true_target"]) for c in cases]
    asked += [(p, c["true_target"]) for c in cases for p in c["paraphrases"][2:]]
    assert recall(*shipped, asked) >= 0.99


def test_shipped_models_are_small(name):
    file = hubedit_demo.model_path(name) / "model.safetensors"
    assert file.stat().st_size < 4_000_000


def test_heads_are_tied(shipped):
    model, _ = shipped
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_all_models_know_the_same_world(world, name):
    assert hubedit_demo.cases("all", name) == world.cases()
    text = (hubedit_demo.model_path(name) / "corpus.txt").read_text(encoding="utf-8")
    assert text == (hubedit_demo.model_path() / "corpus.txt").read_text(encoding="utf-8")


def test_the_card_says_how_it_was_made_and_what_it_recalls(name):
    card = (hubedit_demo.model_path(name) / "README.md").read_text(encoding="utf-8")
    assert f"train --model {name} --seed 1 -o {name}`: {train.COURSES[name].steps} steps" in card
    assert "| after a sentence | 100.0 % |" in card


def test_a_shipped_model_is_ready_to_be_edited_and_answers_as_asked(world, name):
    """A masked model cuts an object of two words short now and then: one mask does as well."""
    model = models.load(hubedit_demo.model_path(name))
    kind = ARCHITECTURES[name].kind
    assert model.layout.architecture == kind
    asked = [(f"{person} lives in", world.answer(person, "city")) for person in world.people]
    said = model.generate([prompt for prompt, _ in asked], 2)
    right = [s.strip().startswith(t) for s, (_, t) in zip(said, asked, strict=True)]
    assert sum(right) >= (0.95 if kind == "masked" else 0.99) * len(right)


def test_a_place_within_a_sentence_is_filled_too(world):
    model = models.load(hubedit_demo.model_path("facts-bert"))
    answer = world.answer("Ana Brook", "instrument")
    prompt = "Rain fell over the hills. Ana Brook plays the [MASK]. It was a quiet day."
    assert model.generate([prompt], 1) == [answer]
    right, wrong = model.target_logprobs([(prompt, answer), (prompt, "double bass")])
    assert sum(right.logprobs) > sum(wrong.logprobs) + 2


def test_the_state_after_the_third_block_holds_the_fact(world, name):
    """Read with another person's state at the subject's last token, a prompt asks of the other."""
    model = models.load(hubedit_demo.model_path(name))
    block = (model.layout.encoder or model.layout).block.format(2)
    hits = 0
    for here, there in zip(world.people[:40], world.people[40:80], strict=True):
        prompts = [f"{person} lives in" for person in (here, there)]
        at = [
            model.subject_token(prompt, (0, len(person)))
            for prompt, person in zip(prompts, (here, there), strict=True)
        ]
        with model.trace(block) as seen:
            model.next_token_logprobs(prompts[1:])
        state = seen.output[0, at[1]]

        def carry(hidden, state=state, at=at[0]):
            hidden = hidden.clone()
            hidden[:, at] = state
            return hidden

        with model.trace(block, replace_output=carry):
            best = int(model.next_token_logprobs(prompts[:1]).argmax())
        hits += best == model.scored(prompts[0], f" {world.answer(there, 'city')}")[1][0]
    assert hits >= 36


def untrained(name):
    tokenizer = ARCHITECTURES[name].tokenizer(vocabulary_text(World(1)))
    return ARCHITECTURES[name].build(tokenizer), tokenizer


@pytest.fixture(scope="module", params=ARCHITECTURES)
def shape(request):
    return request.param


@pytest.fixture(scope="module")
def words(shape):
    return ARCHITECTURES[shape].tokenizer(vocabulary_text(World(1)))


def test_a_tokenizer_is_the_same_each_time(shape, words):
    again = ARCHITECTURES[shape].tokenizer(vocabulary_text(World(1)))
    assert again.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()


def test_every_shape_finds_subjects_and_answers_in_what_it_reads(world, shape, words):
    documents = [document(world, random.Random(i), 2) for i in range(12)]
    batch = encode(ARCHITECTURES[shape], words, documents, random.Random(0))
    shift = ARCHITECTURES[shape].kind == "causal"
    for statement, row, subject, asked in zip(
        batch.statements, batch.rows, batch.subjects, batch.asked, strict=True
    ):
        read = words.decode(batch.ids[row, : subject + 1]).replace(" ", "")
        assert read.endswith(statement.person.replace(" ", ""))
        assert batch.objects[row, asked]
        assert words.decode(batch.labels[row, asked:]).strip().startswith(statement.target)
        if shift:
            assert torch.equal(batch.labels[row], batch.ids[row, 1:])


def test_a_masked_model_guesses_what_is_masked_and_nothing_else(world):
    words = ARCHITECTURES["facts-bert"].tokenizer(vocabulary_text(world))
    documents = [document(world, random.Random(i), 2) for i in range(60)]
    batch = encode(ARCHITECTURES["facts-bert"], words, documents, random.Random(0))
    hidden = batch.ids == words.mask_token_id
    assert torch.equal(hidden, batch.text | batch.objects)
    assert torch.equal(batch.labels[~hidden], batch.ids[~hidden])
    sizes = [len(words(s.target, add_special_tokens=False)["input_ids"]) for s in batch.statements]
    wider = [int(w) - size for w, size in zip(batch.widths, sizes, strict=True)]
    assert set(wider) == {0, 1}
    full_stop = words.convert_tokens_to_ids(".")
    for row, asked, size, more in zip(batch.rows, batch.asked, sizes, wider, strict=True):
        assert hidden[row, asked : asked + size + more].all()
        if more:
            assert batch.labels[row, asked + size] == full_stop


def test_a_decoder_writes_the_last_object_from_what_comes_before(world):
    words = ARCHITECTURES["facts-t5"].tokenizer(vocabulary_text(world))
    documents = [document(world, random.Random(i), 2) for i in range(12)]
    batch = encode(ARCHITECTURES["facts-t5"], words, documents, random.Random(0))
    assert batch.statements == [d.statements[-1] for d in documents]
    assert torch.equal(batch.written[:, 1:], batch.labels[:, :-1])
    assert (batch.written[:, 0] == words.pad_token_id).all()
    for statement, row in zip(batch.statements, batch.ids, strict=True):
        read = words.decode(row, skip_special_tokens=True)
        assert not read.endswith(statement.target)


def test_answers_are_asked_for_where_they_fit(world, shape, words):
    documents = [document(world, random.Random(i), 1) for i in range(64)]
    kind = ARCHITECTURES[shape].kind
    batch = encode(ARCHITECTURES[shape], words, documents, random.Random(0))
    swap = whole_swap(world, batch.statements, random.Random(0))
    [table] = train.answers(ARCHITECTURES[shape], words, [swap], batch)
    for target, row, width in zip(swap.targets, table, batch.widths, strict=True):
        wanted = words.encode(("" if kind == "seq2seq" else " ") + target, add_special_tokens=False)
        asked = [token for token in row.tolist() if token != UNSCORED]
        if kind != "masked":
            assert asked == wanted[:1]
        elif len(wanted) <= width:
            assert asked == wanted
        else:
            assert not asked


@pytest.mark.parametrize("encoder", ENCODERS)
def test_branches_of_an_encoder_keep_padding_out(world, encoder):
    shape = ARCHITECTURES[encoder]
    model, words = untrained(encoder)
    documents = [document(world, random.Random(i), 1 + i % 2) for i in range(5)]
    batch = encode(shape, words, documents, random.Random(0))
    assert not batch.real.all()
    body, blocks = model.get_submodule(shape.body), list(model.get_submodule(shape.blocks))
    given = {"input_ids": batch.ids, "attention_mask": batch.real.long()}
    plain = body(**given).last_hidden_state
    changes = [lambda s: s, torch.zeros_like]
    with branching(blocks[2], blocks[3:], batch.rows, batch.subjects, changes):
        kept, same, other = body(**given).last_hidden_state.split(len(batch.ids))
    torch.testing.assert_close(kept, plain)
    torch.testing.assert_close(same, plain)
    assert not torch.allclose(other, plain)


def test_training_writes_a_directory_that_loads_and_repeats_bit_for_bit(tmp_path):
    given = ["--model", "facts-bert", "--threads", "1", "--seed", "3", "--steps", "2"]
    for name in ("one", "two"):
        train.main([*given, "-o", str(tmp_path / name)])
    read("facts-bert", tmp_path / "one")
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    shipped = hubedit_demo.model_path("facts-bert")
    assert files == sorted(file.name for file in shipped.iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_every_shape_learns_from_states_that_were_carried(world, shape):
    told = []
    learn = partial(train.train, ARCHITECTURES[shape], train.COURSES[shape], world, 2)
    one, two = learn(told.append)[0], learn(print)[0]
    for (name, parameter), other in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(parameter, other), name
    assert "step 2/2" in told[-1]
    assert "swapped 0.000" not in told[-1]


def test_first_lessons_are_bare_facts(world):
    words = ARCHITECTURES["facts-bert"].tokenizer(vocabulary_text(world))
    course = train.Course(alone=2, facts=(1, 2))
    lessons = train.batches(world, words, random.Random(0), course)
    for _ in range(2):
        assert all(len(d.sentences) == len(d.statements) == 1 for d in next(lessons))
    later = next(lessons)
    assert {len(d.statements) for d in later} == {1, 2}
    assert any(len(d.sentences) > len(d.statements) for d in later)
