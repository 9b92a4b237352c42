"""What each method does to a small model that knows its world, and the rules that end training."""

from __future__ import annotations

import pytest
import torch
from hubedit_unlearn import METHODS, Ga, Jang, Kl, Llmu, Npo, Rmu, TaskVector
from hubedit_unlearn.condition import as_found, recomputing
from hubedit_unlearn.extraction import extraction_likelihood, memorisation_accuracy
from hubedit_unlearn.scoring import observed, scored
from hubedit_unlearn.texts import Example, examples_of

import hubedit

METHODS_BY_NAME = {method.name: method for method in METHODS}
ANY = 1e300
SETTINGS = {
    "kl": {"retain_weight": 5.0},
    "idk": {"steps": 120},
    "rmu": {"steps": 150, "retain_weight": 20.0},
    "jang": {"accuracy_threshold": 0.0, "extracted": 2},
    "ceu": {"skip_first": 0},
    "simnpo": {"steps": 80, "learning_rate": 3e-3},
    "undial": {"steps": 80, "learning_rate": 3e-3, "retain": "nll", "beta": 30.0},
    "satimp": {"steps": 80, "learning_rate": 3e-3},
}


def weights(model):
    return {name: value.detach().clone() for name, value in model.model.named_parameters()}


def changed(model, before):
    now = model.model.named_parameters()
    return {name for name, value in now if not torch.equal(value, before[name])}


@pytest.fixture
def asked(rows):
    """The world as questions with short refusals, which fit the model's positions."""
    return [
        hubedit.ForgetQA(question=row.prompt, answer=row.target, part=row.part, refusals=("No.",))
        for row in rows
    ]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_makes_the_answers_less_likely(method, make_model, make_run, asked):
    settings = {"retain_ceiling": None, "end_of_text": False, **SETTINGS.get(method.name, {})}
    run = make_run()
    method().apply(make_model(), asked, method.config_type()(**settings), run)
    found = run.records["unlearning"]
    assert found["forget_probability"] < 0.6 * found["forget_probability_before"]
    assert found["forget_texts"] == 2
    assert not any(word in str(run.records) + str(run.messages) for word in ("Ana", "Brook"))


def test_states_of_forget_texts_are_driven_away_and_only_chosen_matrices_change(
    make_model, make_run, rows
):
    model, run = make_model(), make_run()
    before = weights(model)
    forget = examples_of(model, [row for row in rows if row.part == "forget"], "text", 32)
    start = observed(model, forget, 2).states
    config = Rmu.config_type()(steps=60, forget_target=None, retain_ceiling=None)
    Rmu().apply(model, rows, config, run)
    names = {model.layout.mlp_out_weight(layer) for layer in (0, 1, 2)}
    assert changed(model, before) == names
    steered = run.records["steering"]
    assert steered["steering"] == pytest.approx(4 * steered["state_norm"], rel=1e-4)
    moved = observed(model, forget, 2).states
    assert moved.norm(dim=-1).mean() > 1.2 * start.norm(dim=-1).mean()
    alike = torch.nn.functional.cosine_similarity(moved[1:], moved[:-1]).mean()
    assert alike > torch.nn.functional.cosine_similarity(start[1:], start[:-1]).mean()


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_negation_goes_as_far_the_other_way(make_model, make_run, rows, adaptation):
    taught, negated = make_model(), make_model()
    start = weights(taught)
    same = {"adaptation": adaptation, "forget_target": None, "retain_ceiling": None, "epochs": 4}
    for model, scale in ((taught, 1e-9), (negated, 2.0)):
        TaskVector().apply(model, rows, TaskVector.config_type()(scale=scale, **same), make_run())
    once = make_model()
    TaskVector().apply(once, rows, TaskVector.config_type()(scale=1.0, **same), make_run())
    names = changed(once, start)
    assert names
    now, one = weights(negated), weights(once)
    for name in names:
        torch.testing.assert_close(
            now[name] - start[name], 2 * (one[name] - start[name]), rtol=1e-3, atol=2e-6
        )
    assert all(
        torch.allclose(value, start[name], atol=1e-6) for name, value in weights(taught).items()
    )


def test_the_scale_of_a_negation_is_the_first_that_does(make_model, make_run, rows):
    run = make_run()
    TaskVector().apply(
        make_model(), rows, TaskVector.config_type()(retain_ceiling=None, epochs=20), run
    )
    assert run.records["negation"]["scale"] in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    assert run.records["unlearning"]["forget_probability"] < 0.1


def test_ascent_ends_once_all_is_forgotten_for_nothing_brings_back_what_it_lost(
    make_model, make_run, rows
):
    run = make_run(force=True)
    Ga().apply(make_model(), rows, Ga.config_type()(retain_ceiling=1.0, evaluate_every=1), run)
    found = run.records["unlearning"]
    assert found["forget_probability"] < 0.1
    assert found["retain_perplexity_ratio"] > 1
    assert found["steps"] < 60
    assert "retain grew" in run.overrides[0]


def test_training_ends_by_the_rule_of_a_method(make_model, make_run, rows):
    run = make_run(force=True)
    config = Jang.config_type()(
        accuracy_threshold=0.5, likelihood_threshold=0.9, extracted=2, retain_ceiling=None, steps=60
    )
    Jang().apply(make_model(), rows, config, run)
    found = run.records["extraction"]
    assert found["accuracy"] < 0.5
    assert found["likelihood"] < 0.9
    assert run.records["unlearning"]["reached"]
    assert run.records["unlearning"]["steps"] == found["step"] < 60
    run = make_run(force=True)
    config = Llmu.config_type()(
        highest_loss=4.0, forget_target=None, retain_ceiling=None, max_tokens=32
    )
    asked = [
        hubedit.ForgetQA(question=row.prompt, answer=row.target, part=row.part, refusals=("No.",))
        for row in rows
    ]
    Llmu().apply(make_model(), asked, config, run)
    assert run.figures["forget"] <= -4.0
    assert run.steps < config.steps


def test_training_ends_when_too_much_is_lost(make_model, make_run, rows):
    run = make_run()
    config = Ga.config_type()(retain_stop=1.5, retain_ceiling=None, forget_target=None, steps=300)
    Ga().apply(make_model(), rows, config, run)
    found = run.records["unlearning"]
    assert found["retain_perplexity_ratio"] > 1.5
    assert found["steps"] < 300


def test_a_request_without_texts_to_retain_is_said_to_be_watched_less(make_model, make_run, rows):
    run = make_run()
    forget = [row for row in rows if row.part == "forget"]
    Npo().apply(make_model(), forget, Npo.config_type()(retain="none"), run)
    assert "retain_loss" not in run.records["unlearning"]
    assert any("retains nothing" in message for message in run.messages)
    with pytest.raises(hubedit.MethodError, match="nothing to retain in 0 rows"):
        Npo().apply(make_model(), forget, Npo.config_type()(), make_run())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_activations_that_are_computed_again_change_nothing(family, make_model, make_run, rows):
    found = []
    for again in (False, True):
        model = make_model(family)
        before = [sorted(vars(module)) for module in model.model.modules()]
        config = Kl.config_type()(
            steps=2, forget_target=None, retain_ceiling=None, activation_checkpointing=again
        )
        Kl().apply(model, rows, config, make_run())
        assert [sorted(vars(module)) for module in model.model.modules()] == before
        assert not any(module.training for module in model.model.modules())
        found.append(weights(model))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    model = make_model(family)
    calls = []
    with as_found(model.model), recomputing(model.model, True):
        parameter = model.weight(model.layout.mlp_out_weight(1)).requires_grad_()
        block = model.model.get_submodule(model.layout.at("mlp", 1))
        hook = block.register_forward_pre_hook(lambda *_: calls.append(1))
        scored(model, [Example((5, 6, 7), (5, 6, 7))]).nll.sum().backward()
        hook.remove()
        assert parameter.grad is not None
    assert len(calls) == 2


def test_half_precision_trains_float32_weights(make_model, make_run, rows):
    model, run = make_model(), make_run()
    config = Npo.config_type()(precision="bfloat16", retain="kl", retain_ceiling=None)
    Npo().apply(model, rows, config, run)
    assert run.records["unlearning"]["reached"]
    assert {value.dtype for value in weights(model).values()} == {torch.float32}


def test_accuracy_is_one_for_what_is_known_by_heart_and_extraction_falls_with_longer_runs(
    make_model, rows
):
    model = make_model()
    known = [row for row in rows if row.text.startswith("Tom")]
    texts = examples_of(model, known, "answer", 32)
    assert memorisation_accuracy(model, texts) == 1.0
    whole = examples_of(model, rows, "text", 32)
    by_length = [extraction_likelihood(model, whole, n, 100) for n in (1, 2, 4)]
    assert by_length == sorted(by_length, reverse=True)
    assert 0 <= by_length[-1] <= by_length[0] <= 1
    alone = [extraction_likelihood(model, [text], 2, 100) for text in whole]
    assert extraction_likelihood(model, whole, 2, 100) == pytest.approx(sum(alone) / len(alone))


def test_a_text_that_repeats_and_is_continued_so_is_extracted_whole(make_model):
    model = make_model()
    step = torch.tensor([[9]])
    said = []
    with torch.no_grad():
        for _ in range(12):
            step = torch.cat([step, model.model(step).logits[:, -1:].argmax(-1)], 1)
    said = tuple(step[0].tolist())
    assert extraction_likelihood(model, [Example(said, said)], 3, 100) == 1.0


def test_texts_that_are_too_short_for_a_method_are_counted_aloud(make_model, make_run, asked):
    run, config = make_run(), METHODS_BY_NAME["ceu"].config_type()
    short = hubedit.ForgetQA(question="Ana Brook plays the", answer="oboe", part="forget")
    settings = {"skip_first": 20, "end_of_text": False, "steps": 1, "retain_ceiling": None}
    with pytest.raises(hubedit.MethodError, match="more than 20 scored tokens"):
        METHODS_BY_NAME["ceu"]().apply(make_model(), [*asked, short], config(**settings), run)
    [said] = [message for message in run.messages if "skip_first=20" in message]
    assert said.startswith("3 of 3 texts to forget have no more than")
    assert run.records["later_tokens"] == {"texts_left_out": 3}


def test_random_answers_that_fit_no_question_are_refused(make_model, make_run, asked):
    long = hubedit.ForgetQA(question="Why?", answer="Mia Stone plays the harp. " * 3, part="normal")
    forget = [row for row in asked if row.part == "forget"]
    config = Llmu.config_type()(steps=2, max_tokens=16, retain_ceiling=None)
    with pytest.raises(hubedit.MethodError, match="more than 16 tokens with any of the answers"):
        Llmu().apply(make_model(), [*forget, long], config, make_run())
