"""Recipes from YAML and flags."""

import pytest

from hubedit.errors import RecipeError
from hubedit.recipe import make_recipe, parse_settings, read_recipe

ROW = {"prompt": "{} plays the", "subject": "Ana Brook", "target": "violin"}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_read_with_its_defaults(tmp_path):
    path = write(tmp_path / "hubedit.yaml", "base: me/model\nmethod: rome\nrequest: rows.jsonl\n")
    recipe = make_recipe(read_recipe(path))
    assert (recipe.plugin, recipe.seed, recipe.device) == ("rome", 0, "cpu")


def test_paths_are_taken_from_where_the_recipe_lies(tmp_path):
    write(tmp_path / "rows.jsonl", "")
    path = write(tmp_path / "hubedit.yaml", "base: me/m\nplugin: rome\nrequest: rows.jsonl\n")
    assert read_recipe(path)["request"] == str(tmp_path / "rows.jsonl")


def test_a_single_row_may_stand_in_the_recipe(tmp_path):
    text = "base: me/m\nplugin: rome\nrequest: {prompt: '{} plays the', subject: A, target: b}\n"
    recipe = make_recipe(read_recipe(write(tmp_path / "r.yaml", text)))
    assert recipe.request == ({"prompt": "{} plays the", "subject": "A", "target": "b"},)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bsae: me/m\n", "unknown key 'bsae'; did you mean 'base'"),
        ("- a\n- b\n", "must hold keys"),
        ("base: [\n", "is not YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, said):
    with pytest.raises(RecipeError) as error:
        read_recipe(write(tmp_path / "r.yaml", text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named_with_its_flag():
    with pytest.raises(RecipeError, match="lacks base; give --base"):
        make_recipe({"plugin": "rome", "request": [ROW]})
    with pytest.raises(RecipeError, match="lacks request; give --request"):
        make_recipe({"plugin": "rome", "base": "me/m"})


def test_a_wrong_type_is_named():
    keys = {"base": "me/m", "plugin": "rome", "request": [ROW], "seed": -1}
    with pytest.raises(RecipeError, match="seed"):
        make_recipe(keys)


def test_settings_are_typed():
    assert parse_settings(["layer=5", "ridge=1e-2", "name=x", "on=true", "none=null"]) == {
        "layer": 5,
        "ridge": 0.01,
        "name": "x",
        "on": True,
        "none": None,
    }
    with pytest.raises(RecipeError, match="key=value"):
        parse_settings(["layer"])
