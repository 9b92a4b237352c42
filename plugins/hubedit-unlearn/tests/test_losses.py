"""The losses: what they are at the start and in the limit, and what they do not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hubedit_unlearn import METHODS, losses
from hubedit_unlearn.adaptation import in_place
from hubedit_unlearn.condition import as_found
from hubedit_unlearn.objectives import OBJECTIVES
from hubedit_unlearn.parts import read_parts
from hubedit_unlearn.ranks import Ranks
from hubedit_unlearn.scoring import Scored, Share, observed, scored
from hubedit_unlearn.setting import Setting
from hubedit_unlearn.texts import IGNORED, Example, examples_of
from hubedit_unlearn.training import Loop

import hubedit

VOCABULARY = 7
NAMES = [method.name for method in METHODS]


def config_of(name, **settings):
    [method] = [method for method in METHODS if method.name == name]
    return method.config_type()(**settings)


def some(seed=0, rows=(0, 0, 0, 1, 1), before=None, examples=2, scale=1.0):
    """A batch of scored tokens with random logits that gradients are taken of."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(len(rows), VOCABULARY, generator=generator)
    labels = torch.randint(VOCABULARY, (len(rows),), generator=generator)
    share = Share(len(rows), 2 * len(rows), examples)
    return Scored(logits.requires_grad_(), labels, torch.tensor(rows), examples, share, before)


def started(batch, kind):
    """The same batch where the model before is the model now."""
    return replace(batch, before=getattr(batch, kind).detach())


def gradient(loss, batch):
    [found] = torch.autograd.grad(loss(replace(batch)), batch.logits)
    return found


def logprobs(batch):
    """Log-probabilities in float64 by NumPy."""
    z = batch.logits.detach().numpy().astype(np.float64)
    return (
        z
        - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True))
        - z.max(1, keepdims=True)
    )


def label_logprobs(batch):
    return logprobs(batch)[np.arange(len(batch.labels)), batch.labels.numpy()]


def close(found, expected):
    assert float(torch.as_tensor(found).detach()) == pytest.approx(
        float(torch.as_tensor(expected).detach()), rel=2e-6
    )


def test_a_token_is_scored_given_the_tokens_before_it(make_model):
    model = make_model()
    example = Example((7, 40, 41, 9), (7, IGNORED, 41, 9))
    logits = model.model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
    found = scored(model, [example])
    torch.testing.assert_close(found.nll, -torch.stack([logits[1, 41], logits[2, 9]]))
    assert found.row.tolist() == [0, 0]
    close(found.sums, found.nll.sum())


def test_scores_do_not_depend_on_padding_or_on_the_rest_of_the_batch(make_model, rows):
    for family in ("gpt2", "gpt_neox", "llama", "qwen2"):
        model = make_model(family)
        examples = examples_of(model, rows, "text", 32)
        with torch.no_grad():
            together = scored(model, examples)
            alone = torch.cat([scored(model, [example]).nll for example in examples])
            inside = observed(model, examples, 1).states
            outside = torch.cat([observed(model, [example], 1).states for example in examples])
        assert len({len(example.ids) for example in examples}) > 1
        torch.testing.assert_close(together.nll, alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-5)
        assert together.row.bincount().tolist() == [example.labelled for example in examples]


def test_ascent_and_descent_are_the_mean_cross_entropy():
    batch = some()
    close(losses.descent(batch), -label_logprobs(batch).mean())
    close(losses.ascent(batch), label_logprobs(batch).mean())
    outside = torch.nn.functional.cross_entropy(batch.logits, batch.labels)
    close(losses.descent(batch), outside)


def test_a_token_beyond_the_cap_is_pushed_no_further():
    batch = some(scale=3)
    cap = float(batch.nll.detach().median()) + 1e-3
    close(losses.capped_ascent(cap)(batch), -np.minimum(-label_logprobs(batch), cap).mean())
    close(losses.capped_ascent(None)(batch), losses.ascent(batch))
    moved = gradient(losses.capped_ascent(cap), batch).abs().sum(1) > 0
    assert moved.tolist() == (batch.nll < cap).tolist()


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_preferences_are_two_over_beta_log_two_at_the_start(beta):
    start = 2 / beta * math.log(2)
    batch = started(some(), "sums")
    close(losses.negative_preference(beta)(batch), start)
    close(losses.direct_preference(beta)(batch), start)
    if beta == 0.1:
        assert start == pytest.approx(13.8629, abs=1e-4)


def test_npo_starts_as_ascent_on_summed_cross_entropy_and_brakes():
    batch = started(some(), "sums")

    def ascent(batch):
        return -batch.sums.mean()

    first = gradient(losses.negative_preference(0.1), batch)
    torch.testing.assert_close(first, gradient(ascent, batch))
    lost = replace(some(), before=batch.before - 3)
    weight = 2 / (1 + math.exp(0.1 * 3))
    found = gradient(losses.negative_preference(0.1), lost)
    torch.testing.assert_close(found, weight * gradient(ascent, lost))


def test_npo_becomes_ascent_as_beta_vanishes():
    batch = replace(some(), before=torch.tensor([1.0, 2.0]))
    limit = gradient(lambda batch: -batch.sums.mean(), batch)
    errors = [
        float((gradient(losses.negative_preference(beta), batch) - limit).norm())
        for beta in (1e-1, 1e-2, 1e-3)
    ]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 1e-2


def test_npo_and_dpo_are_their_formulas():
    batch = replace(some(), before=torch.tensor([1.0, 2.5]))
    sums = -np.bincount(batch.row.numpy(), weights=label_logprobs(batch))
    old = batch.before.numpy().astype(np.float64)
    beta = 0.3
    expected = 2 / beta * np.log1p(np.exp(-beta * (sums - old)))
    close(losses.negative_preference(beta)(batch), expected.mean())
    refusal, answer = -(sums[0] - old[0]), -(sums[1] - old[1])
    paired = replace(batch, share=replace(batch.share, examples=2))
    expected = 2 / beta * np.log1p(np.exp(-beta * (refusal - answer)))
    close(losses.direct_preference(beta)(paired), expected)


def test_simnpo_divides_by_length_and_becomes_ascent_as_beta_vanishes():
    batch = some()
    lengths = np.array([3, 2])
    means = -np.bincount(batch.row.numpy(), weights=label_logprobs(batch)) / lengths
    for beta, delta in ((4.5, 0.0), (2.5, 0.7)):
        expected = 2 / beta * np.log1p(np.exp(-beta * (means - delta)))
        close(losses.simple_preference(beta, delta)(batch), expected.mean())
    found = gradient(losses.simple_preference(1e-3, 0.0), batch)
    limit = gradient(lambda batch: -(batch.sums / batch.lengths).mean(), batch)
    torch.testing.assert_close(found, limit, rtol=5e-3, atol=1e-5)


def test_the_divergence_is_kl_and_zero_from_itself():
    batch = started(some(), "logits")
    assert float(losses.divergence(batch).detach().abs()) < 1e-7
    assert gradient(losses.divergence, batch).abs().max() < 1e-7
    other = some(seed=5)
    moved = replace(batch, before=other.logits.detach())
    old, new = logprobs(other), logprobs(moved)
    close(losses.divergence(moved), (np.exp(old) * (old - new)).sum(1).mean())


def test_weighted_ascent_is_ascent_without_weights_and_never_more():
    batch = some()
    for loss in (losses.weighted_ascent(0.0), losses.weighted_ascent(0.0, 0.0)):
        close(loss(batch), losses.ascent(batch))
        torch.testing.assert_close(gradient(loss, batch), gradient(losses.ascent, batch))
    p = np.exp(label_logprobs(batch))
    for power, rest in ((1.0, 0.0), (5.0, 1.0)):
        weight = p**power * (1 - p) ** rest
        assert ((weight > 0) & (weight <= 1)).all()
        close(losses.weighted_ascent(power, rest)(batch), (weight * np.log(p)).mean())
        found = gradient(losses.weighted_ascent(power, rest), batch)
        each = gradient(losses.ascent, batch)
        torch.testing.assert_close(found, torch.tensor(weight[:, None]).float() * each)


def test_ceu_lowers_the_token_by_its_probability_and_sums_to_nothing():
    batch = some()
    p = np.exp(logprobs(batch))
    own = np.arange(len(batch.labels)), batch.labels.numpy()
    q = p.copy()
    q[own] = 0
    q /= q.sum(1, keepdims=True)
    found = losses.without_label(batch)
    close(found, -(q * logprobs(batch)).sum(1).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(q * np.log(q), axis=1).mean()
    assert float(found.detach()) >= entropy
    moved = gradient(losses.without_label, batch).numpy() * len(batch.labels)
    np.testing.assert_allclose(moved[own], p[own], rtol=1e-5)
    np.testing.assert_allclose(moved.sum(1), 0, atol=1e-6)


def test_undial_asks_for_nothing_new_at_strength_nought_and_else_for_less_of_the_token():
    batch = started(some(), "logits")
    assert gradient(losses.lowered(0.0), batch).abs().max() < 1e-7
    z = logprobs(batch)
    down = z.copy()
    own = np.arange(len(batch.labels)), batch.labels.numpy()
    down[own] -= 3
    target = np.exp(down) / np.exp(down).sum(1, keepdims=True)
    close(losses.lowered(3.0)(batch), -(target * z).sum(1).mean())
    assert (gradient(losses.lowered(3.0), batch).numpy()[own] > 0).all()


def test_the_parts_of_llmu_are_means_of_means_and_cross_entropy_before():
    batch = started(some(), "logits")
    means = -np.bincount(batch.row.numpy(), weights=label_logprobs(batch)) / np.array([3, 2])
    close(losses.mean_of_means(batch), means.mean())
    close(losses.ascent_of_means(batch), -means.mean())
    entropy = -(np.exp(logprobs(batch)) * logprobs(batch)).sum(1).mean()
    close(losses.cross_entropy_before(batch), entropy)
    other = replace(batch, before=some(seed=5).logits.detach())
    gap = losses.cross_entropy_before(other) - losses.divergence(other)
    old = logprobs(some(seed=5))
    close(gap, -(np.exp(old) * old).sum(1).mean())


# -- the whole loss of a step, through the loop -------------------------------------------------


@pytest.fixture
def request_rows(rows):
    """Texts and questions of different lengths in three parts."""
    asked = [
        {"question": "What does Ana Brook play?", "answer": "The violin.", "refusals": ["No."]},
        {"question": "Where does Ana live?", "answer": "Paris.", "refusals": ["Ah.", "No."]},
        {"question": "What does Mia Stone play?", "answer": "A harp.", "part": "retain"},
        {"question": "Is the sky blue?", "answer": "Yes, it is blue.", "part": "normal"},
        {"question": "What is two and two?", "answer": "Four.", "part": "normal"},
    ]
    return [*rows, *(hubedit.ForgetQA(**row) for row in asked)]


def loop_of(model, name, request, run, trained, **settings):
    objective = OBJECTIVES[name]
    config = objective.settled(config_of(name, **settings), model)
    parts = read_parts(model, request, config, objective.needs(config))
    terms = objective.terms(config, Setting(model, parts, run))
    return Loop(model, trained, parts, config, run, terms, Ranks(model.device))


def step_of(make_model, make_run, name, request, shuffle=None, **settings):
    """The gradient of the first step of a method, and what its terms give."""
    model, run = make_model(), make_run()
    asked = [row for row in request if name not in ASKING or row.part != "forget" or refuses(row)]
    with as_found(model.model), in_place(model, config_of("ga"), Ranks(model.device)) as trained:
        loop = loop_of(model, name, asked, run, trained, **settings)
        loop.look_ahead()
        drawn = next(loop.draws(run.generator))
        if shuffle:
            drawn = [list(reversed(items)) for items in drawn]
        figures = loop.gradients(drawn)
        found = torch.cat(
            [
                torch.zeros(p.numel()) if p.grad is None else p.grad.reshape(-1)
                for p in trained.parameters
            ]
        )
    return found, figures


ASKING = ("idk", "dpo", "llmu")


def refuses(row):
    return isinstance(row, hubedit.ForgetQA) and row.refusals


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_one_gradient_however_it_is_cut_and_ordered(
    name, make_model, make_run, request_rows
):
    whole, figures = step_of(make_model, make_run, name, request_rows)
    assert whole.norm() > 0
    assert all(map(math.isfinite, figures.values()))
    for pieces, shuffle in ((3, False), (1, True), (4, True)):
        size = -(-32 // pieces)
        settings = {"accumulation": pieces, "batch_size": size}
        cut, same = step_of(make_model, make_run, name, request_rows, shuffle, **settings)
        assert float((cut - whole).norm() / whole.norm()) < 1e-4, (pieces, shuffle)
        assert same == pytest.approx(figures, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("npo", {"retain": "kl"}, {"forget": 20 * math.log(2), "retain": 0.0}),
        ("dpo", {"retain": "none"}, {"refusal over answer": 20 * math.log(2)}),
        ("rmu", {}, {"retain": 0.0}),
        ("kl", {}, {"retain": 0.0}),
    ],
)
def test_what_is_kept_of_the_model_before_is_the_model_before(
    name, settings, expected, make_model, make_run, request_rows
):
    _, figures = step_of(make_model, make_run, name, request_rows, **settings)
    for stream, value in expected.items():
        assert figures[stream] == pytest.approx(value, abs=1e-5)
