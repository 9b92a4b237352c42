"""Rows as tokens and labels: what is scored, what is cut, what is padding."""

from __future__ import annotations

import pytest
import torch
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.parts import read_parts
from hubedit_unlearn.streams import turns
from hubedit_unlearn.texts import (
    IGNORED,
    Example,
    answer_span,
    answered,
    batch_of,
    examples_of,
)

import hubedit


def row(text, part="forget", **question):
    return hubedit.ForgetText(text=text, part=part, **question)


def spoken(model, example, labels=True):
    kept = [token for token in example.labels if token != IGNORED]
    return model.tokenizer.decode(kept if labels else example.ids)


def test_only_the_answer_of_a_question_is_scored(make_model):
    model = make_model()
    asked = row("Ana Brook plays the violin.", prompt="Ana Brook plays the", target="violin")
    [example] = examples_of(model, [asked], "answer", 32)
    assert spoken(model, example).strip() == "violin"
    assert spoken(model, example, labels=False) == "Ana Brook plays the violin."


def test_every_token_is_scored_on_request_and_where_no_question_is_named(make_model):
    model = make_model()
    asked = row("Ana Brook plays the violin.", prompt="Ana Brook plays the", target="violin")
    plain = row("Ana Brook plays the violin.")
    [whole] = examples_of(model, [asked], "text", 32)
    assert examples_of(model, [plain], "answer", 32) == [whole]
    assert whole.labels == whole.ids
    assert whole.labelled == len(whole.ids) - 1


@pytest.mark.parametrize(
    ("text", "prompt", "target"),
    [
        ("Ana plays the violin.", "Ana plays the ", " violin"),
        ("So it is: Ana plays the violin.", "Ana plays the", "violin"),
        ("Q: what?\nA: violin", "Q: what?\nA:", "violin"),
    ],
)
def test_an_answer_is_found_right_after_its_prompt(text, prompt, target):
    start, end = answer_span(row(text, prompt=prompt, target=target))
    assert text[start:end] == "violin"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [("Ana plays the loud violin.", "Ana plays the"), ("The violin is hers.", "Ana plays the")],
)
def test_an_answer_elsewhere_in_the_text_is_no_answer(text, prompt):
    assert answer_span(row(text, prompt=prompt, target="violin")) is None


def test_padding_is_never_scored_though_its_id_is_a_real_token(make_model):
    model = make_model(bos=True)
    short, long = examples_of(model, [row("Ana plays"), row("Tom Reed lives in Oslo.")], "text", 32)
    batch = batch_of([short, long], 0, model.device)
    assert batch.ids[0, 0] == 0
    assert batch.mask[0, 0] == 1
    assert batch.mask.sum(1).tolist() == [len(short.ids), len(long.ids)]
    assert (batch.labels[batch.mask == 0] == IGNORED).all()
    assert (batch.labels[batch.mask == 1] == batch.ids[batch.mask == 1]).all()


def test_a_special_token_behind_the_text_is_left_off_and_one_in_front_kept(make_model):
    model = make_model(bos=True)
    assert len(model.tokenizer("Ana")["input_ids"]) > 2
    [example] = examples_of(model, [row("Ana Brook plays")], "text", 32)
    assert example.ids[0] == 0
    assert example.ids[-1] != 0


@pytest.mark.parametrize("longest", [2, 5, 9])
def test_long_texts_are_cut_so_that_each_token_is_scored_once(make_model, longest):
    model = make_model()
    text = "Tom Reed plays the cello. " * 4
    [whole] = examples_of(model, [row(text)], "text", 1000)
    pieces = examples_of(model, [row(text)], "text", longest)
    assert max(len(piece.ids) for piece in pieces) <= longest
    assert [token for piece in pieces for token in piece.labels[1:]] == list(whole.labels[1:])


def test_pieces_with_nothing_to_score_are_left_out(make_model):
    model = make_model()
    text = "Tom Reed plays the cello. " * 3 + "Ana plays the violin."
    asked = row(text, prompt="Ana plays the", target="violin")
    [piece] = examples_of(model, [asked], "answer", 12)
    assert spoken(model, piece).strip() == "violin"


def test_retention_is_judged_by_answers_where_some_are_named(make_model):
    model = make_model()
    plain, asked = (
        row("Tom Reed plays the cello.", "retain"),
        row("Mia plays the harp.", "retain", prompt="Mia plays the", target="harp"),
    )
    forget = row("Ana Brook plays the violin.")
    named = read_parts(model, [forget, plain, asked], TrainingConfig())
    assert len(named.retain) == 2
    assert [spoken(model, example).strip() for example in named.judged] == ["harp"]
    unnamed = read_parts(model, [forget, plain], TrainingConfig())
    assert unnamed.judged == unnamed.retain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([row("Ana Brook plays")], "nothing to retain in 0 rows"),
        ([row("Ana Brook plays"), row("e", "retain")], "nothing to retain in 1 rows"),
        ([row("Tom Reed plays", "retain")], "nothing to forget in 0 rows"),
        ([row("Ana Brook plays"), row("Ana Brook plays ", "retain")], "same text, 1 times"),
        (
            [row("Ana Brook plays"), row("e"), row("Tom Reed plays", "retain")],
            "of the 2 rows to forget, number 2 has no token",
        ),
    ],
)
def test_a_request_that_lacks_a_part_is_refused_without_quoting_it(make_model, given, message):
    with pytest.raises(hubedit.MethodError, match=message) as refused:
        read_parts(make_model(), given, TrainingConfig())
    assert "Brook" not in str(refused.value)
    assert "Reed" not in str(refused.value)


def test_each_round_of_turns_holds_every_index_once():
    order = turns(5, torch.Generator().manual_seed(0))
    rounds = [[next(order) for _ in range(5)] for _ in range(3)]
    assert all(sorted(each) == list(range(5)) for each in rounds)
    assert rounds[0] != rounds[1]


def test_an_answer_to_a_question_is_scored_with_the_end_of_the_text(make_model):
    model = make_model()
    asked = hubedit.ForgetQA(question="What does Ana play?", answer="Ana plays the violin.")
    [example] = examples_of(model, [asked], "answer", 32)
    assert example.ids[-1] == example.labels[-1] == model.tokenizer.eos_token_id
    assert spoken(model, example).strip() == "Ana plays the violin." + model.tokenizer.eos_token
    [open_end] = examples_of(model, [asked], "answer", 32, ended=False)
    assert spoken(model, open_end).strip() == "Ana plays the violin."
    [whole] = examples_of(model, [asked], "text", 32)
    assert whole.labels == whole.ids == example.ids


def test_another_answer_stands_after_the_same_question(make_model):
    model = make_model()
    asked = hubedit.ForgetQA(question="What does Ana play?", answer="Ana plays the violin.")
    told = row("Ana plays the violin.", prompt="Ana plays the", target="violin")
    refusal = answered(model, asked, "Who knows.", 32)
    assert spoken(model, refusal).strip() == "Who knows." + model.tokenizer.eos_token
    assert spoken(model, refusal, labels=False).startswith("What does Ana play? Who")
    assert spoken(model, answered(model, told, "Who knows.", 32)).strip() == "Who knows."
    assert answered(model, row("Ana plays the violin."), "Who knows.", 32) is None
    assert answered(model, asked, "Who knows.", 5) is None


def test_the_first_scored_tokens_can_be_left_out():
    example = Example((5, 6, 7, 8), (5, IGNORED, 7, 8))
    assert example.without_first(1).labels == (5, IGNORED, IGNORED, 8)
    assert example.without_first(9).labelled == 0


def test_an_example_counts_what_can_be_predicted():
    assert Example((5, 6, 7), (5, IGNORED, 7)).labelled == 1
