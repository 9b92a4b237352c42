"""The baselines on a model that knows facts: the fact changes; what else changes is theirs."""

from __future__ import annotations

import pytest
from hubedit_ft import Ft, FtL, FtM, Lora

import hubedit

demo = pytest.importorskip("hubedit_demo")


@pytest.mark.parametrize("method", [Ft, FtL, FtM, Lora], ids=lambda method: method.name)
def test_a_fact_and_its_paraphrases_are_rewritten(method, facts, run):
    case = demo.cases("dev")[1]
    told = {name: case[name] for name in ("prompt", "subject", "target", "true_target")}
    method().apply(facts, [hubedit.FactEdit(**told)], method.config_type()(), run)
    asked = [case["prompt"].replace("{}", case["subject"]), *case["paraphrases"]]
    scores = facts.target_logprobs([(prompt, f" {case['target']}") for prompt in asked])
    assert [tuple(score.token_ids) == tuple(score.top_ids) for score in scores] == [True] * 5
    assert run.records["rows"][0]["reached"]
    assert run.records["training"]["loss"] < method.config_type()().stop_loss
