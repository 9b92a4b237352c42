"""`hubedit eval`: real models asked real questions, in figures and files."""

import json
import math
import subprocess
import sys

import hubedit_demo
import numpy as np
import pytest
import torch
import yaml
from tiny import make

import hubedit as api
from hubedit import models
from hubedit.errors import RequestError
from hubedit.evaluating import neutral, writing
from hubedit.evaluating.answers import hear
from hubedit.evaluating.cases import FactCase, Item
from hubedit.evaluating.sources import named_cases
from hubedit.evaluating.tasks import HARNESS
from hubedit.hub import Hub
from hubedit.plugins import load_plugins

BASE = str(hubedit_demo.model_path())
TEXT = "Ada Brook plays the cello and lives in Porto."


@pytest.fixture(scope="module")
def facts():
    return models.load(hubedit_demo.model_path())


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """Two facts edited at once in the shipped model, with their own questions."""
    from hubedit.recipe import make_recipe
    from hubedit.run import apply, prepare

    folder = tmp_path_factory.mktemp("edited")
    rows = [
        {key: value for key, value in case.items() if key != "split"}
        for case in hubedit_demo.cases("test")[:40:20]
    ]
    recipe = make_recipe(
        {"base": str(hubedit_demo.model_path()), "plugin": "ft-m", "request": rows, "threads": 1}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBEDIT_HOME", str(folder / "home"))
        apply(prepare(recipe, Hub), folder / "edit")
    return folder / "edit"


def test_items_are_heard_as_the_model_predicts_them(facts):
    case = FactCase.model_validate(hubedit_demo.cases("test")[0])
    item = Item(0, "rewrite", case.text, case.true_target, case.target)
    unknown = Item(0, "neighbour", case.text, None)
    heard, free = hear(facts, [item, unknown])
    ids = facts.tokenizer(case.text)["input_ids"]
    target = facts.tokenizer(f" {case.true_target}")["input_ids"]
    with torch.no_grad():
        logits = facts.model(torch.tensor([[*ids, *target]])).logits[0].double()
    logprobs = logits.log_softmax(-1)
    wanted = [float(logprobs[len(ids) - 1 + i, token]) for i, token in enumerate(target)]
    assert heard.target.logprobs == pytest.approx(wanted, abs=1e-4)
    assert list(heard.target.token_ids) == target
    assert heard.rival is not None
    assert heard.answer == case.true_target
    assert free.target is None
    assert free.written.strip().startswith(case.true_target)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_neutral_texts_are_read_as_the_architecture_predicts(tmp_path, family):
    model = models.load(make(tmp_path / family, family))
    found = neutral.read(model, [TEXT, "Tom Adler plays the oboe."])
    if family == "t5":
        assert found == []
        return
    ids = model.tokenizer(TEXT)["input_ids"]
    total = 0.0
    if family == "gpt2":
        assert found[0].targets.tolist() == ids[1:]
        logprobs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total = -sum(float(logprobs[i, token]) for i, token in enumerate(ids[1:]))
    else:
        own = [i for i, token in enumerate(ids) if token not in model.tokenizer.all_special_ids]
        places = own[:: max(1, len(own) // 8)][:8]
        assert found[0].targets.tolist() == [ids[place] for place in places]
        for place in places:
            hidden = [model.tokenizer.mask_token_id if i == place else t for i, t in enumerate(ids)]
            logits = model.model(torch.tensor([hidden])).logits[0, place].double()
            total -= float(logits.log_softmax(-1)[ids[place]])
    assert found[0].nll == pytest.approx(total, rel=1e-4)


def test_texts_are_written_from_the_likeliest_tokens_and_repeat(facts):
    beginnings = ["Ana Brook plays the", "Tom lives in", "Ana Brook"]
    written = writing.write_on(facts, beginnings, seed=1)
    assert written == writing.write_on(facts, beginnings, seed=1)
    assert written != writing.write_on(facts, beginnings, seed=2)
    assert all(text.startswith(start) for text, start in zip(written, beginnings, strict=True))
    ids = facts.tokenizer(written[0])["input_ids"]
    start = len(facts.tokenizer(beginnings[0])["input_ids"])
    logits = facts.model(torch.tensor([ids])).logits[0]
    ranks = [
        int((logits[place - 1] > logits[place - 1, ids[place]]).sum())
        for place in range(start, start + 10)
    ]
    assert max(ranks) < writing.TOP_K


def test_an_edit_is_scored_on_its_own_request(edited):
    found = api.evaluate(str(edited), base=BASE)
    assert found.n == 2
    assert found.score("rewrite", "exact").before == 0
    assert found.score("rewrite", "exact").after == 1
    assert found.score("rewrite", "free").after == 1
    assert found.score("neighbour", "exact").before == 1
    assert found.score("neighbour", "unchanged").before is None
    assert found.score("neutral", "divergence").after > 0
    assert found.score("text", "fluency").n == 2
    assert [one.metric for one in found.skipped] == ["portability.*"]
    assert api.evaluate(str(edited), base=BASE) == found


def test_the_model_before_is_the_base_and_another_can_be_named(edited):
    own = api.evaluate(str(edited), base=BASE, texts=False)
    same = api.evaluate(str(edited), base=BASE, against=str(edited), texts=False)
    assert same.score("neutral", "divergence").after == 0
    assert same.score("attribute", "unchanged").after == 1
    assert same.score("rewrite", "exact").before == own.score("rewrite", "exact").after
    assert math.isclose(
        same.score("neutral", "perplexity").before, own.score("neutral", "perplexity").after
    )


def test_eval_writes_a_table_json_a_page_a_picture_and_a_block_for_the_card(hubedit, edited):
    status, out, err = hubedit(
        "eval",
        edited,
        "--base",
        BASE,
        "--cases",
        "facts-gpt2",
        "--limit",
        3,
        "--no-writing",
        "-o",
        "out",
    )
    assert status == 0
    assert "3 cases (facts-gpt2, split test)" in " ".join(out.split())
    assert "not measured: text.* (no texts were asked for)" in out
    from pathlib import Path

    written = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert sorted(written) == [
        "evaluation.json",
        "evaluation.md",
        "evaluation.png",
        "model-index.yml",
    ]
    value = json.loads(written["evaluation.json"])
    index = yaml.safe_load(written["model-index.yml"])["model-index"][0]
    assert index["results"][0]["metrics"][0]["value"] == value["scores"][0]["after"]
    assert index["results"][0]["task"]["type"] == "text-generation"
    assert written["evaluation.png"].startswith(b"\x89PNG")
    status, out, _ = hubedit("eval", edited, "--base", BASE, "--no-writing", "--json")
    assert status == 0
    assert json.loads(out)["n"] == 2
    status, _, err = hubedit("eval", edited, "-o", "out")
    assert status == 1
    assert "not empty" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cases", "facts-gpt"], "did you mean 'facts-gpt2'"),
        (["--cases", "facts-gpt2", "--split", "tset"], "did you mean 'test'"),
        (["--against", "./nothing"], "no directory ./nothing"),
        (["--texts", "none.txt"], "none.txt does not exist"),
    ],
)
def test_mistakes_are_named_with_the_way_out(hubedit, edited, arguments, said):
    status, out, err = hubedit("eval", edited, "--base", BASE, *arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert "Traceback" not in err


def test_a_plain_model_has_no_request_of_its_own(hubedit):
    status, _, err = hubedit("eval", hubedit_demo.model_path())
    assert status == 1
    assert "name cases with --cases" in err


def test_cases_come_from_files_by_their_split(tmp_path):
    file = tmp_path / "cases.jsonl"
    rows = [
        {"prompt": "{} is", "subject": name, "target": "b", "split": split}
        for name, split in (("A", "dev"), ("B", "test"), ("C", "test"))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plugins = load_plugins()
    found = named_cases(str(file), plugins, Hub)
    assert [case.subject for case in found.cases] == ["B", "C"]
    assert found.words == "cases.jsonl, split test"
    assert len(named_cases(str(file), plugins, Hub, split="dev").cases) == 1
    with pytest.raises(RequestError, match="known: dev, test"):
        named_cases(str(file), plugins, Hub, split="all")


def test_knowedit_cases_ask_what_follows(tmp_path):
    file = tmp_path / "recent.json"
    file.write_text(
        json.dumps(
            {
                "subject": "Leo Arons",
                "prompt": "The place of death of Leo Arons is",
                "target_new": "Berlin",
                "portability": {
                    "Reasoning": [{"prompt": "Leo Arons died in", "ground_truth": [["Germany"]]}]
                },
                "locality": {},
            }
        )
    )
    (case,) = named_cases(str(file), load_plugins(), Hub).cases
    assert [(probe.prompt, probe.target) for probe in case.portability] == [
        ("Leo Arons died in", "Germany")
    ]


WITHOUT = """
import sys

sys.modules[sys.argv[1]] = None  # Python's own word for a module that is not there
from hubedit.cli import run

sys.exit(run(sys.argv[2:]))
"""


def test_without_the_harness_its_tasks_are_refused_with_the_way_to_install_it(edited):
    """In an interpreter that does not find the harness, whether it is installed or not."""
    asked = ["eval", edited, "--base", BASE, "--tasks", "arc_easy"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, HARNESS, *map(str, asked)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'hubedit[tasks]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_tasks_of_the_harness_are_run_before_and_after(edited, hubedit, tmp_path):
    asked = [
        {"asked": "Ana Brook plays the", "choices": [f" {said}", " of of of of"], "label": 0}
        for said in ("oboe", "harp")
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    task = {
        "task": "plays",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "asked.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{asked}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "plays.yaml").write_text(yaml.safe_dump(task))
    words = ["eval", edited, "--base", BASE, "--no-writing", "--limit", 1, "--tasks"]
    status, out, err = hubedit(*words, tmp_path / "plays.yaml", "--json")
    assert status == 0, err
    ran = json.loads(out)["tasks"]
    assert {name: [score["task"] for score in ran[name]] for name in ran} == {
        "before": ["plays"],
        "after": ["plays"],
    }
    assert all(0 <= score["value"] <= 1 for scores in ran.values() for score in scores)
    status, _, err = hubedit(*words, tmp_path / "nothing.yaml")
    assert status == 1
    assert "there is no file" in err


def test_kl_is_zero_only_where_nothing_moved(facts):
    read = neutral.read(facts, ["Ana Brook plays the organ.", TEXT])
    assert [shift.divergence for shift in neutral.shifts(read, read)] == [0, 0]
    assert all(np.isfinite(one.logprobs).all() for one in read)
