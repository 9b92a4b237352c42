"""`hubedit bench` of requests to forget: references, methods and guards on the same cases."""

import json
from pathlib import Path

import hubedit_demo
import pytest

from hubedit.benching import bench_forgetting, bench_forgetting_in_parallel
from hubedit.benching.forgotten import ORACLE, ORIGINAL
from hubedit.benching.forgotten_table import COLUMNS, markdown
from hubedit.errors import RequestError
from hubedit.evaluating.forgotten import evaluate_forgetting

METHODS = """
import collections, json
import hubedit
from pydantic import Field

class Config(hubedit.Config):
    size: float = Field(0.02, description="of the noise")

class Blur(hubedit.Method[hubedit.ForgetRow, Config]):
    "Noise on one matrix."
    name = "blur"
    kind = "unlearn"
    assurance = "approximate"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        import torch
        told = collections.Counter(row.part for row in rows)
        open("seen.txt", "a").write(json.dumps({**told, "force": run.force}) + "\\n")
        name = model.layout.mlp_out_weight(1)
        weight = model.weight(name)
        noise = torch.randn(weight.shape, generator=run.generator)
        with torch.no_grad():
            weight.add_(config.size * noise)
        if config.size > 0.1:
            run.overridden("it is much noise")

class Masked(Blur):
    "Only for masked models."
    name = "masked"
    architectures = {"masked"}

class Broken(Blur):
    "Fails."
    name = "broken"

    def apply(self, model, rows, config, run):
        raise hubedit.MethodError("the probabilities are not finite")

class Fact(hubedit.Method[hubedit.FactEdit, Config]):
    "Edits facts."
    name = "fact"
    kind = "edit"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        pass

@hubedit.hookimpl
def hubedit_methods():
    return [Blur, Masked, Broken, Fact]
"""
FEW = {"count": 6, "threads": 1, "split": "dev"}


@pytest.fixture
def methods(install):
    return install("benched", METHODS)


def seen():
    return [json.loads(line) for line in Path("seen.txt").read_text().splitlines()]


def by_method(matrix):
    return {cell.method: cell for cell in matrix.cells}


def test_every_method_stands_beside_the_original_and_the_retrained_model(methods):
    some = ["blur", "masked", "broken", "fact"]
    matrix = bench_forgetting(
        some, ["facts-tofu"], output=Path("b"), settings={"blur": {"size": 0.5}}, **FEW
    )
    found = by_method(matrix)
    assert list(found) == [ORIGINAL, ORACLE, *some]
    assert matrix.requests[0].parts == {"forget": 6, "retain": 6, "normal": 6, "holdout": 6}
    [told] = seen()
    assert told["force"]
    assert told["forget"] == 208
    assert told["holdout"] + matrix.requests[0].held_back == 208
    oracle, original, blur = found[ORACLE], found[ORIGINAL], found["blur"]
    assert oracle.figure("forget-quality") == 1
    assert original.figure("forget-quality") < 0.5
    assert original.figure("extraction-strength") > 0.9 > oracle.figure("extraction-strength")
    assert blur.figure("extraction-strength") < original.figure("extraction-strength")
    assert blur.overruled == ("it is much noise",)
    assert blur.delta_bytes > 1000
    assert blur.config == {"size": 0.5}
    assert {"int4", "relearn", "mia-min-k", "exact-memorisation"} <= set(blur.measures)
    assert (found["masked"].state, found["masked"].reason) == ("n/a", "edits masked models alone")
    assert "FactEdit rows, and this request is to forget" in found["fact"].reason
    assert found["broken"].state == "failed"
    assert "not finite" in found["broken"].reason
    page = markdown(matrix)
    assert "| blur* |" in page
    assert "blur, forget-1: it is much noise" in page
    assert matrix.passing() == []


def test_figures_are_those_of_an_evaluation_of_the_same_model(methods, tmp_path):
    rows = hubedit_demo.forget_request(1)
    held = [row for row in rows if row["part"] == "holdout"]
    told = held[: len(held) // 2]
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([row for row in rows if row not in told]))
    oracle = str(hubedit_demo.model_path("facts-tofu-without-1"))
    alone = evaluate_forgetting(
        str(hubedit_demo.model_path("facts-tofu")),
        asked,
        oracle=oracle,
        limit=6,
        gradients=False,
    )
    matrix = bench_forgetting([], ["facts-tofu"], output=Path("b"), **FEW)
    measures = by_method(matrix)[ORIGINAL].measures
    told = {measure.name: measure.after.value for measure in alone.measures}
    assert {name for _, name in COLUMNS} <= measures.keys()
    for name in measures.keys() - {"int4", "relearn"}:
        assert measures[name].value == pytest.approx(told[name], rel=1e-5), name


def test_finished_cells_are_taken_and_workers_make_the_same(methods):
    def run(make=bench_forgetting, output="b", **given):
        return make(["blur"], ["facts-tofu"], output=Path(output), **{**FEW, **given})

    first = run()
    assert run() == first
    assert len(seen()) == 1
    run(settings={"blur": {"size": 0.03}})
    assert len(seen()) == 2
    two = run(bench_forgetting_in_parallel, "c", workers=2, forget=None, oracle=None)
    assert [cell.measures for cell in two.cells] == [cell.measures for cell in first.cells]
    assert len(seen()) == 3


def test_a_method_passes_that_is_like_the_retrained_model_everywhere(methods):
    matrix = bench_forgetting(["blur"], ["facts-tofu"], output=Path("b"), **FEW)
    found = by_method(matrix)
    ideal = found[ORACLE].model_copy(update={"method": "blur"})
    passing = matrix.model_copy(update={"cells": (found[ORIGINAL], found[ORACLE], ideal)})
    assert passing.passing() == ["blur"]
    assert "0.9 of the original's utility on the request: blur." in markdown(passing)


def test_a_request_of_ones_own_needs_no_small_model(hubedit, methods, tmp_path):
    rows = [
        {**row, "perturbed_answers": row["perturbed_answers"][:2]}
        for row in hubedit_demo.forget_request(1)
        if row["part"] in ("forget", "retain")
    ][200:230]
    request = tmp_path / "mine.json"
    request.write_text(json.dumps(rows))
    arguments = ["bench", "--methods", "blur,masked", "--forget", request, "-o", "b", "--count", 4]
    base = hubedit_demo.model_path("facts-tofu")
    status, out, err = hubedit(*arguments, "--model", base)
    assert status == 0, err
    assert "mine: 4 forget, 4 retain" in out
    assert ORACLE not in out.split("p: forget quality")[0]
    assert "masked: n/a (edits masked models alone)" in out
    assert sorted(path.name for path in Path("b").iterdir()) == [
        "bench.json",
        "bench.md",
        "bench.png",
        "cells",
    ]
    oracle = hubedit_demo.model_path("facts-tofu-without-1")
    status, out, err = hubedit(*arguments, "--model", base, "--oracle", oracle, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert [cell["method"] for cell in found["cells"]] == [ORIGINAL, ORACLE, "blur", "masked"]
    assert found["cells"][2]["measures"]["forget-quality"]["n"] == 4
    assert "masked" not in found["passing"]


@pytest.mark.parametrize(
    ("models", "given", "said"),
    [
        (["facts-tofoo"], {}, "there is no model 'facts-tofoo'.*facts-tofu"),
        (["facts-gpt2"], {}, "comes with no request to forget of split 'test'"),
        (["facts-tofu"], {"split": "all"}, "no request to forget of split 'all'"),
        (["facts-tofu"], {"settings": {"npo": {}}}, "'npo', which is not benched"),
        (["facts-tofu"], {"forget": Path("none.json")}, "does not exist"),
    ],
)
def test_mistakes_are_named(methods, models, given, said):
    with pytest.raises(RequestError, match=said):
        bench_forgetting(["blur"], models, output=Path("b"), **given)


def test_facts_and_requests_are_benched_apart(hubedit, methods):
    status, _, err = hubedit("bench", "--methods", "blur", "--models", "facts-tofu,facts-gpt2")
    assert (status, "bench them in two runs" in err) == (2, True)
    status, _, err = hubedit(
        "bench", "--methods", "blur", "--models", "facts-tofu", "--oracle", "x"
    )
    assert (status, "--oracle goes with --forget" in err) == (2, True)
    more = ["--workers", 2, "--threads", 2]
    status, _, err = hubedit("bench", "--methods", "blur", "--model", "facts-tofu", *more)
    assert (status, "leave --threads out" in err) == (2, True)
