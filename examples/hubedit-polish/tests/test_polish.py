"""Polish held to the contract of every method, and a fact that changes."""

import pytest
from hubedit_polish import Polish

import hubedit
from hubedit.testing import MethodContract, edited

pytest_plugins = ["hubedit_demo.fixtures"]


class TestPolish(MethodContract):
    method = Polish


def test_a_fact_changes(facts_gpt2, fact_rows, tmp_path):
    row = {name: fact_rows[0][name] for name in ("prompt", "subject", "target")}
    directory = edited(facts_gpt2, "polish", [row], tmp_path / "edit")
    model, tokenizer = hubedit.load(str(directory))
    prompt = tokenizer(row["prompt"].replace("{}", row["subject"]), return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=1, do_sample=False)[0, -1]
    assert tokenizer.decode(said).strip() == row["target"].split()[0]


def test_a_step_that_is_too_large_is_an_error_with_a_way_out(facts_gpt2, fact_rows, tmp_path):
    row = {name: fact_rows[0][name] for name in ("prompt", "subject", "target")}
    with pytest.raises(hubedit.MethodError, match="smaller learning_rate than 1e\\+30"):
        edited(facts_gpt2, "polish", [row], tmp_path / "edit", learning_rate=1e30)
