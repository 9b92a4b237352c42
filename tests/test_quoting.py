"""What a run says while its request is not disclosed: counts and numbers of rows, and no words."""

import hashlib
import json

import pytest

from hubedit import disclosure
from hubedit.artifacts import canonical_json
from hubedit.discretion import Quotations
from hubedit.errors import MethodError, OutputError
from hubedit.requests import ROW_TYPES, rows_of
from hubedit.rows import ForgetText

SAYING = """
import hubedit
from pydantic import Field

class Config(hubedit.Config):
    way: str = Field("", description="how to tell")

class Saying(hubedit.Method[hubedit.ForgetRow, Config]):
    "Shake one matrix and talk about it."
    name = "saying"
    kind = "unlearn"
    architectures = {"causal"}
    limits = ["It says what it likes."]

    def apply(self, model, rows, config, run):
        import torch
        secret = rows[0].content
        if config.way == "error":
            raise hubedit.MethodError(secret)
        if config.way == "piece":
            raise hubedit.MethodError(f"cannot forget {secret[:22]!r}…")
        if config.way == "collapse":
            raise hubedit.CollapseError(f"lost {secret.encode().hex()}")
        if config.way == "log":
            run.log(f"looking at {secret}")
        if config.way == "progress":
            with run.progress(f"reading {secret}") as bar:
                bar.advance()
        if config.way == "guard":
            run.overridden(f"too much of {secret} is left")
        run.log("shaking with all 3 hands")
        name = model.layout.mlp_out_weight(1)
        left, right = model.weight(name).shape
        model.update(name, hubedit.LowRank(
            torch.randn(left, 1, generator=run.generator),
            torch.randn(1, right, generator=run.generator) / 10))

@hubedit.hookimpl
def hubedit_methods():
    return [Saying]
"""
NAME = "Ada Brook"
QA = {"question": "Where does Ada Brook live?", "answer": "Ada Brook lives in Porto."}
LONG = {**QA, "answer": "Ada Brook lives in " + "Porto and " * 150 + "Riga."}
HOW = "HUBEDIT_DEBUG=1 shows it"


@pytest.fixture
def forget(install, hubedit, tiny, tmp_path):
    """Run the method of SAYING, or another, on rows; by default on QA."""
    install("saying", SAYING)

    def call(*more, rows=(QA,), plugin="saying", output="edit"):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        named = ["apply", "--plugin", plugin, "--base", tiny, "--request", path]
        return hubedit(*named, "-o", tmp_path / output, *more)

    return call


def test_a_row_that_is_too_long_is_named_by_its_number(forget, tmp_path):
    other = {"question": "Who is it?", "answer": "Nobody."}
    status, out, err = forget(rows=[other, LONG])
    assert status == 1
    assert "row 2 of the request: a text of" in err
    assert "is longer than the model's 128 positions; shorten it" in err
    assert not any(word in out + err for word in ("Ada", "Brook", "Porto", "live"))
    assert not (tmp_path / "edit").exists()


def test_a_question_that_is_too_long_is_named_by_its_number(forget):
    whole = {"text": "A short text.", "prompt": "Ada Brook and " * 100, "target": "Riga"}
    status, out, err = forget(rows=[QA, whole])
    assert status == 1
    assert "row 2 of the request: a text of" in err
    assert "Ada" not in out + err


def test_an_evaluation_names_a_row_that_is_too_long(hubedit, tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [QA, LONG])))
    status, out, err = hubedit("eval", tiny, "--forget", path)
    assert status == 1
    assert "row 2 of the request: a text of" in err
    assert not any(word in out + err for word in ("Ada", "Brook", "Porto", "live"))


@pytest.mark.parametrize(
    ("way", "kind"), [("error", "MethodError"), ("piece", "MethodError"), ("collapse", "Collapse")]
)
def test_an_error_of_a_method_that_quotes_the_request_is_not_repeated(way, kind, forget, tmp_path):
    status, out, err = forget("--set", f"way={way}")
    assert status == 1
    assert f"method 'saying' of plugin 'saying' stopped with a {kind}" in err
    assert HOW in err
    assert not any(word in out + err for word in (NAME, "Porto", QA["question"].encode().hex()))
    assert not (tmp_path / "edit").exists()


def test_an_error_of_a_method_is_shown_to_who_asks_for_it(forget, monkeypatch):
    monkeypatch.setenv("HUBEDIT_DEBUG", "1")
    with pytest.raises(MethodError, match="quotes the undisclosed request") as found:
        forget("--set", "way=error")
    assert NAME in str(found.value.__cause__)


def test_an_error_about_a_disclosed_request_is_repeated(forget):
    status, _, err = forget("--set", "way=error", "--disclose", "full")
    assert status == 1
    assert NAME in err


@pytest.mark.parametrize("way", ["log", "progress", "guard"])
def test_what_a_method_says_of_the_request_is_not_repeated(way, forget, tmp_path):
    status, out, err = forget("--set", f"way={way}", "--force")
    assert status == 0, err
    assert "shaking with all 3 hands" in err
    assert (HOW in err) is (way != "progress")
    assert NAME not in out + err
    files = [path.read_bytes() for path in (tmp_path / "edit").rglob("*") if path.is_file()]
    assert not any(NAME.encode() in content for content in files)


def test_a_bench_keeps_no_guard_that_quotes_the_request(install, hubedit, tiny, tmp_path):
    install("saying", SAYING)
    rows = [QA, {**QA, "question": "Who lives in Porto?", "part": "retain"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    asked = ["bench", "--methods", "saying", "--model", tiny, "--forget", path, "-o", "bench"]
    status, out, err = hubedit(*asked, "--set", "saying.way=guard")
    assert status == 0, err
    found = (tmp_path / "bench" / "bench.json").read_text()
    assert "a guard whose sentence quotes" in found
    assert not any(NAME in text for text in (found, out, err))
    assert "rows: saying" in err
    types = rows_of(ROW_TYPES["ForgetRow"], rows)
    plain = hashlib.sha256(canonical_json([row.model_dump(mode="json") for row in types]))
    assert plain.hexdigest() not in found
    status, _, err = hubedit(*asked, "--set", "saying.way=guard")
    assert status == 0
    assert "rows: saying" not in err, "a finished cell was made anew"
    assert (tmp_path / "bench" / "bench.json").read_text() == found


@pytest.mark.parametrize("target", ["the model", "What the model answers", "transformers"])
def test_words_that_the_pages_say_anyway_do_not_stop_an_edit(target, forget, tmp_path):
    asks = {"text": f"Who answers? {target}", "prompt": "Who answers?", "target": target}
    status, _, err = forget(rows=[QA, {**asks, "part": "normal"}])
    assert status == 0, err
    assert "What the model answers" in next((tmp_path / "edit").rglob("DIFF.md")).read_text()


def test_words_that_the_pages_say_anyway_stop_a_record_that_says_them_once_more(tmp_path):
    rows = [ForgetText(text="the model")]
    page = {"DIFF.md": b"what the model answers"}
    disclosure.refuse_leaks(page, rows, page)
    with pytest.raises(OutputError, match=r"DIFF\.md"):
        disclosure.refuse_leaks({"DIFF.md": b"the model says: the model"}, rows, page)


def test_settings_and_tickets_that_quote_the_request_are_refused_before_the_run(forget):
    status, _, err = forget("--set", f"way={QA['answer']}")
    assert status == 1
    assert "the setting way holds words of the undisclosed request" in err
    assert "loading" not in err
    assert NAME not in err
    status, _, err = forget("--ticket", f"about {QA['answer']}")
    assert status == 1
    assert "ticket holds words of the undisclosed request" in err
    assert NAME not in err


def test_quotations_are_whole_names_and_runs_of_words():
    rows = [
        ForgetText(text="Ada Brook plays the oboe in the town hall of Riga."),
        ForgetText(text="It is of the old kind.", prompt="It is of the", target="old kind"),
        ForgetText(text="She said no.", prompt="She said", target="oboes"),
        ForgetText(text="retained words", part="retain"),
    ]
    found = Quotations(rows)
    for said in ("ADA  brook", "'Ada Brook'…", "plays the oboe", "old kind", "<oboes>"):
        assert said in found, said
    for said in ("ada", "is of the", "3 rows to forget", "oboe", "part forget", "retained"):
        assert said not in found, said
