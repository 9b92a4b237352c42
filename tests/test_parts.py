"""A request whose parts come from sources of their own."""

import json

import pytest
from pyarrow import Table, parquet
from shaken import shaken

from hubedit.editions import open_edition
from hubedit.errors import RecipeError, RequestError
from hubedit.gathering import gathered
from hubedit.hub import Hub
from hubedit.recipe import make_recipe, parse_request, read_recipe
from hubedit.requests import request_digest
from hubedit.rows import FactEdit, ForgetQA, ForgetRow


def question(name, plays):
    return {"question": f"What does {name} play?", "answer": f"{name} plays the {plays}."}


FORGET = [question("Ada Brook", "oboe"), question("Eva Lind", "zither")]
RETAIN = [question("Tom Adler", "cello")]
UNSEEN = [question("Max Ober", "tuba")]
MERGED = [*FORGET, *({**row, "part": "retain"} for row in RETAIN)]
MERGED += [{**row, "part": "holdout"} for row in UNSEEN]


@pytest.fixture
def files(tmp_path):
    """A directory with the rows of each part in a file, none of which says its part, and merged."""

    def lines(rows):
        return "".join(json.dumps(row) + "\n" for row in rows)

    (tmp_path / "forget.jsonl").write_text(lines(FORGET))
    parquet.write_table(Table.from_pylist(RETAIN), tmp_path / "kept.parquet")
    (tmp_path / "unseen.json").write_text(json.dumps(UNSEEN))
    (tmp_path / "merged.jsonl").write_text(lines(MERGED))
    return tmp_path


@pytest.fixture
def sources(files):
    return [
        f"holdout={files / 'unseen.json'}",
        f"forget={files / 'forget.jsonl'}",
        f"retain={files / 'kept.parquet'}",
    ]


def flags(name, values):
    return [word for value in values for word in (name, value)]


def test_an_edit_from_parts_is_that_of_one_merged_file(
    install, hubedit, tiny, files, sources, monkeypatch
):
    install("shaken", shaken("ForgetQA", 0.1))
    monkeypatch.chdir(files)
    made = ["apply", "--plugin", "shaken", "--base", tiny]
    status, _, said = hubedit(*made, *flags("--request", sources), "-o", "parts")
    assert status == 0, said
    assert hubedit(*made, "--request", "merged.jsonl", "-o", "merged")[0] == 0
    one, other = (open_edition(name, Hub).manifests[-1] for name in ("parts", "merged"))
    assert one.request == other.request
    assert one.request.parts == {"forget": 2, "holdout": 1, "retain": 1}
    assert set(one.request.tokens) == {"forget", "holdout", "retain"}
    for part, count in (("forget", "2 rows"), ("retain", "1 row"), ("holdout", "1 row")):
        assert f"part {part}: {count}, {one.request.tokens[part]} tokens" in said

    status, said, _ = hubedit("erasure", "prove", "parts", *flags("--items", sources))
    assert (status, said.count("was in the request")) == (0, 4)
    wrong = ["--items", "retain=forget.jsonl"]
    assert hubedit("erasure", "prove", "parts", *wrong)[0] == 1

    some = ["--limit", "2", "--json"]
    status, said, _ = hubedit("eval", "parts", *flags("--forget", sources), *some)
    assert (status, json.loads(said)["parts"]) == (0, {"forget": 2, "holdout": 1, "retain": 1})


def test_a_recipe_names_parts_with_paths_from_where_it_lies(files):
    path = files / "hubedit.yaml"
    head = "base: me/m\nplugin: npo\nrequest:\n"
    path.write_text(head + "  retain: kept.parquet\n  forget: hf://datasets/me/a/forget10@main\n")
    recipe = make_recipe(read_recipe(path))
    assert recipe.request == {
        "retain": str(files / "kept.parquet"),
        "forget": "hf://datasets/me/a/forget10@main",
    }
    for text in ("  forget: a.jsonl\n  retian: b.jsonl\n", "  retian: b.jsonl\n"):
        path.write_text(head + text)
        with pytest.raises(RecipeError, match="no part is called 'retian'; did you mean 'retain'"):
            make_recipe(read_recipe(path))
    path.write_text(head + "  question: Who?\n  answer: Ada.\n  part: retain\n")
    assert make_recipe(read_recipe(path)).request == (
        {"question": "Who?", "answer": "Ada.", "part": "retain"},
    )


def test_flags_name_one_source_or_each_part(files, monkeypatch):
    assert parse_request([]) is None
    assert parse_request(["rows.jsonl"]) == "rows.jsonl"
    assert parse_request(["retain=a=b.jsonl"]) == {"retain": "a=b.jsonl"}
    monkeypatch.chdir(files)
    (files / "k=2.jsonl").write_text("")
    assert parse_request(["k=2.jsonl"]) == "k=2.jsonl"
    for given, said in (
        (["forgot=a.jsonl"], "no part is called 'forgot'; did you mean 'forget'"),
        (["forget=a.jsonl", "b.jsonl"], "named with its part, such as forget=b.jsonl"),
        (["forget=a.jsonl", "forget=b.jsonl"], "part forget is named twice"),
        (["forget="], "part forget has no source"),
    ):
        with pytest.raises(RecipeError, match=said):
            parse_request(given)


def test_the_order_of_parts_makes_no_other_request(files):
    one = {"forget": str(files / "forget.jsonl"), "retain": str(files / "kept.parquet")}
    other = dict(reversed(one.items()))
    digests = {request_digest(gathered(ForgetRow, named, Hub)) for named in (one, other)}
    assert len(digests) == 1


def test_what_contradicts_its_part_is_refused(files, hubedit, tiny, install, monkeypatch):
    merged = str(files / "merged.jsonl")
    with pytest.raises(RequestError, match=r"row 3 of .*merged.jsonl names another part than forg"):
        gathered(ForgetQA, {"forget": merged}, Hub)
    with pytest.raises(RequestError, match="FactEdit have no parts such as forget"):
        gathered(FactEdit, {"forget": merged}, Hub)
    install("shaken", shaken("ForgetQA", 0.1))
    monkeypatch.chdir(files)
    both = ["--request", "forget=forget.jsonl", "--request", "retain=forget.jsonl"]
    status, _, said = hubedit("apply", "--plugin", "shaken", "--base", tiny, *both, "-o", "edit")
    assert (status, "the same item in the parts forget and retain, 2 times" in said) == (1, True)
    assert not (files / "edit").exists()
