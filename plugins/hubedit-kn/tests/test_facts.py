"""Erasing on models that know facts: the answer goes, others with the same answer keep theirs."""

from __future__ import annotations

import math

import pytest
from hubedit_kn import Kn, KnConfig, KnownFact

demo = pytest.importorskip("hubedit_demo")
CASES = 6


def chance(score):
    return math.exp(sum(score.logprobs))


@pytest.mark.parametrize("name", demo.MODELS)
def test_an_erased_answer_loses_half_its_probability_and_neighbours_stay(facts, run, name):
    model = facts(name)
    halved, stayed = [], []
    for case in demo.cases("dev", name)[:CASES]:
        model.restore()
        told = {key: case[key] for key in ("prompt", "subject", "true_target")}
        row = KnownFact.model_validate(told)
        asked = [(row.text, f" {row.true_target}")]
        near = [(one["prompt"], f" {one['target']}") for one in case["neighbours"]]
        first, *before = model.target_logprobs(asked + near)
        Kn().apply(model, [row], KnConfig(operation="erase"), run)
        last, *after = model.target_logprobs(asked + near)
        (record,) = run.records["rows"]
        assert record["probability"][1] <= 0.4 * record["probability"][0]
        assert record["neurons"] >= len(record["refined"]) >= 2
        halved.append(chance(last) <= chance(first) / 2)
        stayed += [one.top_ids == two.top_ids for one, two in zip(before, after, strict=True)]
    assert sum(halved) >= 0.8 * CASES
    assert sum(stayed) >= 0.95 * len(stayed)


def test_an_update_at_the_answer_is_followed_and_does_not_stay_with_its_subject(facts, run):
    """The literature's criticism, on record: who else has the old answer is rewritten too."""
    model = facts("facts-gpt2")
    case = demo.cases("dev", "facts-gpt2")[0]
    row = KnownFact.model_validate(
        {key: case[key] for key in ("prompt", "subject", "target", "true_target")}
    )
    asked = [(row.text, f" {row.target}")]
    near = [(one["prompt"], f" {one['target']}") for one in case["neighbours"]]
    before = model.target_logprobs(near)
    Kn().apply(model, [row], KnConfig(), run)
    (now,) = model.target_logprobs(asked)
    assert tuple(now.token_ids) == tuple(now.top_ids)
    after = model.target_logprobs(near)
    assert any(one.top_ids != two.top_ids for one, two in zip(before, after, strict=True))
