"""Ten facts at once on a model that knows facts: they change, and what should stay stays."""

from __future__ import annotations

import pytest
from hubedit_memit import AlphaEdit, Emmet, Memit, MemitConfig

import hubedit

demo = pytest.importorskip("hubedit_demo")


@pytest.fixture
def ten():
    """Ten cases of the tuning split about ten people."""
    found = {case["subject"]: case for case in demo.cases("dev")}
    return list(found.values())[:10]


def told(case):
    return hubedit.FactEdit(
        **{name: case[name] for name in ("prompt", "subject", "target", "true_target")}
    )


def said(model, questions):
    """The share of questions (prompt, answer) whose whole answer is the likeliest."""
    scores = model.target_logprobs([(prompt, f" {answer}") for prompt, answer in questions])
    return sum(tuple(score.token_ids) == tuple(score.top_ids) for score in scores) / len(scores)


def questions(cases):
    subjects = [case["subject"] for case in cases]
    follow = [(case["prompt"].replace("{}", case["subject"]), case["target"]) for case in cases]
    others = [(text, case["target"]) for case in cases for text in case["paraphrases"]]
    stay = [
        (probe["prompt"], probe["target"])
        for case in cases
        for probe in case["neighbours"]
        if not any(subject in probe["prompt"] for subject in subjects)
    ]
    return follow, others, stay


@pytest.mark.parametrize("method", [Memit, Emmet, AlphaEdit], ids=lambda method: method.name)
def test_ten_facts_at_once_are_rewritten_and_their_neighbours_stay(method, facts, facts_run, ten):
    follow, others, stay = questions(ten)
    assert said(facts, follow) == 0
    method().apply(facts, [told(case) for case in ten], method.config_type()(), facts_run)
    assert said(facts, follow) == 1
    assert said(facts, others) >= 0.9
    assert said(facts, stay) >= 0.95
    assert all(row["reached"] for row in facts_run.records["rows"])


def test_the_update_of_ten_facts_has_rank_ten_in_every_layer(facts, facts_run, ten):
    Memit().apply(facts, [told(case) for case in ten], Memit.config_type()(), facts_run)
    changes = facts.changes()
    assert list(changes) == [f"transformer.h.{layer}.mlp.c_proj.weight" for layer in (1, 2)]
    assert [update.rank for updates in changes.values() for update in updates] == [10, 10]


def test_later_batches_keep_what_earlier_ones_wrote(facts, facts_run, ten):
    config = AlphaEdit.config_type()(batch=5)
    AlphaEdit().apply(facts, [told(case) for case in ten], config, facts_run)
    follow, _, stay = questions(ten)
    assert said(facts, follow) == 1
    assert said(facts, stay) >= 0.95
    assert [batch["rows"] for batch in facts_run.records["batches"]] == [5, 5]


def test_a_later_row_about_a_subject_keeps_what_an_earlier_one_said_of_it(facts, facts_run):
    by_subject: dict[str, dict[str, dict]] = {}
    for case in demo.cases("dev"):
        by_subject.setdefault(case["subject"], {})[case["true_target"]] = case
    cases = [list(facts.values())[:2] for facts in by_subject.values() if len(facts) > 1][:2]
    order = [cases[0][0], cases[1][0], cases[0][1], cases[1][1]]
    config = MemitConfig(batch=2)
    Memit().apply(facts, [told(case) for case in order], config, facts_run)
    assert said(facts, questions(order)[0]) == 1
    assert facts_run.records["batches"][-1]["recall"] == 1


def drift(facts, run, cases, **how):
    """How the perplexity on held-out texts grew after each batch of one row."""
    rows = [told(case) for case in cases]
    Memit().apply(facts, rows, MemitConfig(layers=(1,), batch=1, **how), run)
    return [batch["canary_ratio"] for batch in run.records["batches"]]


def test_a_guard_leaves_out_a_later_batch_and_keeps_what_was_written(facts, make_facts_run, ten):
    grown = drift(facts, make_facts_run(), ten[:5])
    worst = max(range(1, 5), key=lambda number: grown[number] - max(grown[:number]))
    limit = {"max_canary_ratio": (grown[worst] + max(grown[:worst])) / 2}
    assert max(grown[:worst]) < limit["max_canary_ratio"] < grown[worst]

    facts.restore()
    run = make_facts_run()
    assert drift(facts, run, ten[:5], **limit) == grown[:worst]
    assert run.records["left_out"]["from_row"] == worst + 1
    assert "the perplexity on" in run.records["left_out"]["reason"]
    assert "and those after them were left out" in run.messages[-1]
    assert len(run.records["rows"]) == worst
    assert said(facts, questions(ten[:worst])[0]) == 1

    facts.restore()
    with pytest.raises(hubedit.CollapseError, match=f"rows {worst + 1} to {worst + 1}: the perple"):
        drift(facts, make_facts_run(), ten[:5], on_collapse="stop", **limit)
