"""What is heard of real models, and what treatments do to them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hubedit import models
from hubedit.errors import RequestError
from hubedit.forgetting import cases as asking
from hubedit.forgetting import robustness
from hubedit.forgetting.hearing import hear, of_part
from hubedit.forgetting.measures import DEFINITIONS, kept_numbers, values
from hubedit.rows import FactEdit, ForgetQA, ForgetText

PARTS = ("forget", "retain", "normal", "holdout")
NO_ROOM = {"verbatim", "choice", "choice-from-chance", "choice-bias", "choice-retain"}
"""What needs rows of texts, or more positions than the tiny model has."""
PLACES = ("Porto", "Riga", "Ghent")
NAMES = ("Ada Brook", "Tom Adler", "Nils Okafor", "Mira Castellanos")


def question(name, part):
    return ForgetQA(
        question=f"Where does {name} live?",
        answer=f"{name} lives in Porto.",
        part=part,
        paraphrases=(f"Which town is home to {name}?",),
        paraphrased_answer=f"Porto is home to {name}.",
        perturbed_answers=tuple(f"{place} is home to {name}." for place in PLACES[1:]),
    )


@pytest.fixture(scope="module")
def rows():
    return [question(f"{name} {part}", part) for part in PARTS for name in NAMES]


@pytest.fixture(scope="module")
def model(tiny):
    return models.load(tiny)


@pytest.fixture(scope="module")
def heard(model, rows):
    return hear(model, asking.cases(rows), gradients=True, recited=True)


def logits_of(model, prompt, answer):
    """Float64 logits before each token of the answer and the end, and the tokens themselves."""
    words = model.tokenizer
    ids = words(prompt + answer + words.eos_token)["input_ids"]
    start = len(words(prompt)["input_ids"])
    with torch.no_grad():
        found = model.model(torch.tensor([ids])).logits[0].double().numpy()
    return found[start - 1 : -1], ids[start:]


def test_answers_are_heard_as_their_logits_say(model, rows, heard):
    for row, one in zip(rows, heard, strict=True):
        logits, target = logits_of(model, row.question, f" {row.answer}")
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        picked = logs[np.arange(len(target)), target]
        assert one.loss == pytest.approx(-picked.mean(), abs=1e-5)
        hits = logits.argmax(1)[:-1] == target[:-1]
        assert one.exact == pytest.approx(hits.mean())
        least = np.sort(picked[:-1])[: int(0.4 * (len(target) - 1))]
        assert one.min_k == pytest.approx(-least.mean(), abs=1e-5)
        chances = np.exp(logs)
        middle = (chances * logs).sum(1)
        spread = np.sqrt((chances * (logs - middle[:, None]) ** 2).sum(1))
        z = np.sort(((picked - middle) / spread)[:-1])[: len(least)]
        assert one.min_k_pp == pytest.approx(-z.mean(), abs=1e-4)


def test_the_truth_ratio_compares_answers_of_one_form(model, rows, heard):
    for row, one in zip(rows, heard, strict=True):
        losses = []
        for text in (row.paraphrased_answer, *row.perturbed_answers):
            logits, target = logits_of(model, row.question, f" {text}")
            logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            losses.append(-logs[np.arange(len(target)), target].mean())
        assert [one.correct, *one.wrong] == pytest.approx(losses, abs=1e-5)


def test_gradients_are_those_of_one_answer_at_a_time(model, rows, heard):
    words = model.tokenizer
    row = rows[0]
    ids = words(f"{row.question} {row.answer}{words.eos_token}")["input_ids"]
    start = len(words(row.question)["input_ids"])
    labels = [-100] * start + ids[start:]
    parameters = list(model.model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss = model.model(torch.tensor([ids]), labels=torch.tensor([labels])).loss
    grads = torch.autograd.grad(loss, parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    expected = np.mean([float(grad.norm()) for grad in grads])
    assert heard[0].gradient == pytest.approx(expected, rel=1e-4)
    assert of_part(heard, "retain")[0].gradient is None


def test_held_out_answers_are_read_and_not_written(heard):
    assert all(one.written is None for one in of_part(heard, "holdout"))
    assert all(isinstance(one.written, str) for one in of_part(heard, "normal"))


def test_a_model_is_its_own_oracle(heard):
    found = values(heard, heard)
    assert set(found) == set(DEFINITIONS) - NO_ROOM
    assert found["forget-quality"].value == 1
    assert found["forget-ks"].value == 0
    assert found["privacy-leakage"].value == 0
    assert found["mia-reference"].value == 0.5
    without = values(heard)
    assert "forget-quality" not in without
    assert without["utility"] == found["utility"]


def test_rows_without_wrong_answers_leave_the_truth_ratio_of_the_others(heard):
    def without(part, count):
        bare = {id(one) for one in of_part(heard, part)[:count]}
        return [replace(one, wrong=(), correct=None) if id(one) in bare else one for one in heard]

    whole = kept_numbers(heard)
    assert {n for _, n in whole.values()} == {4}
    found = kept_numbers(without("retain", 1))
    assert list(found) == list(whole)
    ratios = [
        np.exp(-np.mean(one.wrong)) / np.exp(-one.correct) for one in of_part(heard, "retain")[1:]
    ]
    truer = np.mean([max(0.0, 1 - ratio) for ratio in ratios])
    assert found["retain truth ratio"] == (pytest.approx(truer, abs=1e-9), 3)
    assert {name: v for name, v in found.items() if v != whole[name]}.keys() <= {
        "retain truth ratio"
    }
    numbers = [value for value, _ in found.values()]
    by_hand = 0.0 if min(numbers) == 0 else len(numbers) / sum(1 / v for v in numbers)
    assert values(without("retain", 1))["utility"].value == pytest.approx(by_hand, abs=1e-9)

    some = kept_numbers(without("normal", 2))
    shares = [
        np.exp(-one.loss) / (np.exp(-one.loss) + sum(np.exp(-loss) for loss in one.wrong))
        for one in of_part(heard, "normal")[2:]
    ]
    assert some["normal probability"] == (pytest.approx(np.mean(shares), abs=1e-9), 2)
    assert (some["normal recall"][1], some["normal truth ratio"][1]) == (4, 2)
    none = kept_numbers(without("normal", 4))
    assert "normal truth ratio" not in none
    assert none["normal probability"][1] == 4


SCORED = ("forget-probability", "forget-recall", "exact-memorisation", "privacy-leakage")


@pytest.mark.parametrize(
    "name", [name for name in DEFINITIONS if "strength" in name or "mia" in name or name in SCORED]
)
def test_measures_of_answers_say_that_plain_texts_are_scored_by_halves(name):
    assert "by its second half, given its first" in DEFINITIONS[name].variant


def test_of_long_parts_evenly_many_are_asked(rows):
    asked = asking.cases(rows, limit=2)
    assert asking.counts(asked) == dict.fromkeys(PARTS, 2)
    assert [case.row for case in asked[:2]] == [1, 3]


def test_a_text_is_asked_for_by_its_first_half():
    (case,) = asking.cases([ForgetText(text="one two three four")])
    assert (case.prompt, case.answer) == ("one two", " three four")
    with pytest.raises(RequestError, match="FactEdit"):
        asking.cases([FactEdit(prompt="{} plays", subject="Ada", target="oboe")])
    with pytest.raises(RequestError, match="part forget"):
        asking.cases([ForgetText(text="one two three", part="retain")])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [0, 1])
def test_a_grid_has_as_many_steps_as_its_bits(bits, inputs):
    weight = torch.randn(96, 96, generator=torch.Generator().manual_seed(bits))
    weight[3] = 0
    found = robustness.rounded(weight, bits, inputs)
    turned = (found if inputs == 1 else found.T).numpy()
    exact = (weight if inputs == 1 else weight.T).numpy()
    size = 96 if bits == 8 else robustness.BLOCK
    steps = 2 ** (bits - 1) - 1
    for row, true in zip(turned, exact, strict=True):
        for at in range(0, 96, size):
            block, wanted = row[at : at + size], true[at : at + size]
            scale = np.abs(wanted).max() / steps
            assert np.abs(block - wanted).max() <= scale / 2 + 1e-6
            if scale:
                np.testing.assert_allclose(block / scale, np.round(block / scale), atol=1e-4)


def test_treatments_leave_the_model_as_it_was(model, rows):
    asked = asking.cases(rows)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    with robustness.quantised(model, 4):
        changed = [
            name
            for name, value in model.model.state_dict().items()
            if not torch.equal(value, before[name])
        ]
    assert changed
    assert all(".h." in name and name.endswith("weight") for name in changed)
    points = robustness.curves(model, asked)
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    gates = {point.gate for point in points} - {"none", "relearn"}
    assert gates == set(robustness.TREATMENTS) - {"few-shot"}  # too long
    assert [point.amount for point in points if point.gate == "relearn-retain"] == [1, 4]


def test_relearning_teaches_what_it_is_shown(model, rows):
    lessons = asking.cases(rows)[:2]
    before = [one.loss for one in hear(model, lessons, write=False)]
    with robustness.relearned(model, lessons, passes=8, rate=1e-3):
        after = [one.loss for one in hear(model, lessons, write=False)]
    assert all(new < old - 0.1 for new, old in zip(after, before, strict=True))
    again = [one.loss for one in hear(model, lessons, write=False)]
    assert again == before
    assert not any(math.isnan(value) for value in after)


def test_examples_never_show_the_question_itself(rows):
    asked = [case for case in asking.cases(rows) if case.part == "forget"]
    for case, shown in zip(asked, asking.after_examples(asked, asked, 2), strict=True):
        assert shown.prompt.endswith(case.prompt)
        assert shown.prompt.count("Where does") == 3
        assert shown.prompt.count(case.prompt) == 1
