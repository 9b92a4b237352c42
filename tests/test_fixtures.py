"""The fixtures for authors of plugins: what they give is what the commands take."""

import json

import pytest

from hubedit.artifacts import cache_home

pytest_plugins = ["hubedit.fixtures", "hubedit_demo.fixtures"]


@pytest.mark.parametrize("name", ["facts_gpt2", "facts_llama", "facts_bert", "facts_t5"])
def test_a_recipe_is_written_as_the_commands_read_it(
    request, write_recipe, fact_rows, hubedit, name
):
    base = request.getfixturevalue(name)
    row = {key: fact_rows[0][key] for key in ("prompt", "subject", "target")}
    recipe = write_recipe(base, "rome", [row], config={"layer": 1}, seed=3)
    status, out, err = hubedit("plan", recipe, "--json")
    assert status == 0, err
    said = json.loads(out)
    assert (said["rows"], said["method"]) == (1, "rome")


def test_a_home_is_where_things_are_kept(hubedit_home):
    assert cache_home() == hubedit_home
