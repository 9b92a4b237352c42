"""What a run says while its request is not disclosed: counts and numbers of rows, and no words."""

import json

import pytest

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
