"""The loss: what it is by hand, and what it does not depend on."""

from __future__ import annotations

import pytest
import torch
from hubedit_unlearn import GradDiffConfig
from hubedit_unlearn.losses import LOSSES, Scored, scored
from hubedit_unlearn.texts import IGNORED, Example, read_parts
from hubedit_unlearn.training import gradients


@pytest.fixture
def parts(make_model, rows):
    return read_parts(make_model(), rows, GradDiffConfig(labels="text", retain_labels="text"))


def objective(**settings):
    return LOSSES["graddiff"](GradDiffConfig(**settings))


def gradient(model, forget, retain, pieces=1, **settings):
    parameters = [p.requires_grad_() for p in model.model.parameters()]
    model.model.zero_grad()
    means = gradients(model, forget, retain, pieces, objective(**settings))
    return torch.cat([p.grad.reshape(-1) for p in parameters]), means


def test_a_token_is_scored_given_the_tokens_before_it(make_model):
    model = make_model()
    example = Example((7, 40, 41, 9), (7, IGNORED, 41, 9))
    logprobs = model.model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
    found = scored(model, [example], 2, 1)
    torch.testing.assert_close(found.nll, -torch.stack([logprobs[1, 41], logprobs[2, 9]]))
    assert found.row.tolist() == [0, 0]


def test_scores_do_not_depend_on_padding_or_on_the_rest_of_the_batch(make_model, parts):
    for family in ("gpt2", "llama"):
        model = make_model(family)
        with torch.no_grad():
            together = scored(model, parts.retain, 1, 1)
            alone = torch.cat([scored(model, [example], 1, 1).nll for example in parts.retain])
        assert len({len(example.ids) for example in parts.retain}) > 1
        torch.testing.assert_close(together.nll, alone, rtol=1e-5, atol=1e-5)
        counts = [example.labelled for example in parts.retain]
        assert together.row.bincount().tolist() == counts


def test_gradient_difference_is_retained_less_forgotten_mean_cross_entropy():
    forget = Scored(torch.tensor([0.5, 1.5, 4.0]), torch.tensor([0, 0, 1]), 3, 2)
    retain = Scored(torch.tensor([0.2, 0.4]), torch.tensor([0, 1]), 2, 2)
    found = objective(retain_weight=2.0, forget_cap=None)(forget, retain)
    assert float(found) == pytest.approx(2 * 0.3 - 2.0)
    capped = objective(retain_weight=2.0, forget_cap=3.0)(forget, retain)
    assert float(capped) == pytest.approx(2 * 0.3 - 5 / 3)


def test_a_token_beyond_the_cap_is_pushed_no_further():
    nll = torch.tensor([0.5, 4.0], requires_grad=True)
    none = torch.zeros(0)
    objective(forget_cap=3.0)(
        Scored(nll, torch.tensor([0, 0]), 2, 1), Scored(none, none, 1, 1)
    ).backward()
    assert nll.grad.tolist() == [-0.5, 0.0]


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_accumulated_batches_have_the_gradient_of_one_large_batch(make_model, parts, pieces):
    model = make_model()
    assert len({example.labelled for example in parts.retain}) > 1
    whole, means = gradient(model, parts.forget, parts.retain)
    accumulated, same = gradient(model, parts.forget, parts.retain, pieces)
    assert float((accumulated - whole).norm() / whole.norm()) < 1e-5
    assert same == pytest.approx(means, rel=1e-5)


def test_the_gradient_does_not_depend_on_the_order_of_a_batch(make_model, parts):
    model = make_model()
    forward, _ = gradient(model, parts.forget, parts.retain, 2)
    backward, _ = gradient(model, parts.forget[::-1], parts.retain[::-1], 3)
    assert float((forward - backward).norm() / forward.norm()) < 1e-5
