"""ROME on a model that knows facts: the fact changes, and what should stay stays."""

from __future__ import annotations

import pytest
from hubedit_rome import Rome, RomeConfig

import hubedit
from hubedit import models

demo = pytest.importorskip("hubedit_demo")


@pytest.fixture(scope="module", params=["facts-gpt2", "facts-llama"])
def facts(request):
    return models.load(demo.model_path(request.param))


@pytest.fixture
def case():
    return demo.cases("dev")[1]


def says(model, prompt, answer):
    """Whether every token of the answer is the likeliest one."""
    [score] = model.target_logprobs([(prompt, f" {answer}")])
    return tuple(score.token_ids) == tuple(score.top_ids)


def edited(model, case, run, **settings):
    model.restore()
    told = {name: case[name] for name in ("prompt", "subject", "target", "true_target")}
    Rome().apply(model, [hubedit.FactEdit(**told)], RomeConfig(**settings), run)
    return run.records["rows"][0]


@pytest.mark.parametrize("preserve", ["none", "attributes"])
def test_a_fact_is_rewritten_and_the_rest_stays(preserve, facts, case, make_run):
    prompt = case["prompt"].replace("{}", case["subject"])
    facts.restore()
    assert says(facts, prompt, case["true_target"])
    figures = edited(facts, case, make_run(corpus=None), preserve=preserve)
    assert figures["reached"]
    assert says(facts, prompt, case["target"])
    assert all(says(facts, text, case["target"]) for text in case["paraphrases"])
    kept = [says(facts, near["prompt"], near["target"]) for near in case["neighbours"]]
    assert sum(kept) >= len(kept) - 1
    if preserve == "attributes":
        stays = [says(facts, other["prompt"], other["target"]) for other in case["attributes"]]
        assert sum(stays) >= len(stays) - 1


def test_a_name_with_braces_and_quotes_is_edited_like_any_other(facts, case, make_run):
    odd = {**case, "subject": 'Ana "{B}" Brook'}
    edited(facts, odd, make_run(corpus=None))
    assert says(facts, case["prompt"].replace("{}", odd["subject"]), case["target"])


def test_the_edit_is_kilobytes_of_factors(facts, case, make_run):
    edited(facts, case, make_run(corpus=None))
    [(name, [update])] = facts.changes().items()
    assert name.endswith(("mlp.c_proj.weight", "mlp.down_proj.weight"))
    assert update.left.nbytes + update.right.nbytes == 4 * sum(facts.start(name).shape)
