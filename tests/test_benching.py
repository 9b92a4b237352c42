"""`hubedit bench`: methods on models, cell by cell, gone on with after a kill, never twice."""

import json
from pathlib import Path

import hubedit_demo
import pytest

from hubedit.benching import bench, bench_in_parallel
from hubedit.benching.cells import Cell, Cells
from hubedit.benching.matrix import spread
from hubedit.benching.table import heads, line, markdown
from hubedit.errors import OutputError, RequestError
from hubedit.evaluating.cases import FactCase, told_apart
from hubedit.requests import rows_of

METHODS = """
import hubedit
from pydantic import Field

class Config(hubedit.Config):
    size: float = Field(0.05, description="of the step")

class Nudge(hubedit.Method[hubedit.FactEdit, Config]):
    "Shift one weight by one rank for each row."
    name = "nudge"
    kind = "edit"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        import torch
        open("seen.txt", "a").write(
            "".join(f"{len(rows)} {row.subject} {len(row.paraphrases)}\\n" for row in rows)
        )
        name = model.layout.mlp_out_weight(1)
        left, right = model.weight(name).shape
        step = torch.randn(left, 1, generator=run.generator) * config.size
        model.update(name, hubedit.LowRank(step, torch.randn(1, right, generator=run.generator)))

class Filler(Nudge):
    "Only for masked models."
    name = "filler"
    architectures = {"masked"}

class Guarded(Nudge):
    "Always stops."
    name = "guarded"

    def apply(self, model, rows, config, run):
        raise hubedit.CollapseError("the guard stopped it")

class Idle(Nudge):
    "Changes nothing."
    name = "idle"

    def apply(self, model, rows, config, run):
        pass

class Broken(Nudge):
    "Fails."
    name = "broken"

    def apply(self, model, rows, config, run):
        raise ValueError("no luck")

class Own(hubedit.FactEdit):
    "A fact with more to it."

class Owner(hubedit.Method[Own, Config]):
    "Takes rows of its own type."
    name = "owner"
    kind = "edit"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        if not all(isinstance(row, Own) for row in rows):
            raise ValueError("rows of another type")
        Nudge().apply(model, rows, config, run)

@hubedit.hookimpl
def hubedit_methods():
    return [Nudge, Filler, Guarded, Idle, Broken, Owner]
"""


@pytest.fixture
def methods(install):
    return install("benched", METHODS)


def seen():
    return Path("seen.txt").read_text().splitlines() if Path("seen.txt").exists() else []


def test_every_cell_of_a_model_is_scored_on_the_same_cases_which_no_method_saw(methods):
    matrix = bench(["nudge"], ["facts-gpt2"], (1, 2), output=Path("b"), count=2)
    one, both = matrix.cells
    assert (one.state, one.runs, both.runs) == ("done", 2, 1)
    assert [text.split()[0] for text in seen()] == ["1", "1", "2", "2"]
    assert [text.split()[1:3] for text in seen()[:2]] == [text.split()[1:3] for text in seen()[2:]]
    assert all(text.endswith(" 0") for text in seen())
    cases = told_apart(rows_of(FactCase, hubedit_demo.cases("test")))
    chosen = spread(cases, 2)
    assert matrix.models[0].case_ids == tuple(case.case_id for case in chosen)
    assert one.score("rewrite", "exact").n == both.score("rewrite", "exact").n == 2
    assert one.score("paraphrase", "exact").n == sum(len(case.paraphrases) for case in chosen)
    assert one.score("neighbour", "exact").before == 1
    assert one.score("neutral", "divergence").after > 0
    assert one.delta_bytes > 500
    assert one.seconds > 0


def test_a_finished_cell_is_not_made_again_unless_what_it_depends_on_changed(methods):
    def run(**given):
        return bench(["nudge"], ["facts-gpt2"], (1,), output=Path("b"), count=1, **given)

    first = run()
    assert len(seen()) == 1
    assert run() == first
    assert len(seen()) == 1
    run(settings={"nudge": {"size": 1}})
    assert len(seen()) == 2
    fresh = run(fresh=True)
    assert len(seen()) == 3
    assert fresh.cells[0].scores == first.cells[0].scores


def test_a_bench_that_was_cut_off_goes_on_where_it_was(methods):
    class Cut(Exception):
        pass

    def stop(cell):
        if cell.edits == 1:
            raise Cut

    with pytest.raises(Cut):
        bench(["nudge"], ["facts-gpt2"], (1, 2), output=Path("b"), count=2, done=stop)
    assert len(seen()) == 2
    matrix = bench(["nudge"], ["facts-gpt2"], (1, 2), output=Path("b"), count=2)
    assert len(seen()) == 4
    assert [cell.edits for cell in matrix.cells] == [1, 2]
    file = next(Path("b/cells").glob("*nudge-2*"))
    file.write_text(file.read_text()[:50])
    again = bench(["nudge"], ["facts-gpt2"], (1, 2), output=Path("b"), count=2)
    assert [cell.scores for cell in again.cells] == [cell.scores for cell in matrix.cells]
    assert len(seen()) == 6


def test_workers_make_the_same_cells_in_processes_of_their_own(methods):
    models = ["facts-gpt2"]
    one = bench(["nudge"], models, (1,), output=Path("a"), count=1, threads=1)
    told = len(seen())
    two = bench_in_parallel(["nudge"], models, (1,), output=Path("b"), workers=2, count=1)
    assert len(seen()) == 2 * told
    assert [cell.scores for cell in two.cells] == [cell.scores for cell in one.cells]
    assert two.threads == 1


def test_what_a_method_does_not_do_is_said_and_a_stopped_run_is_the_unedited_model(methods):
    matrix = bench(
        ["filler", "graddiff", "guarded", "idle", "broken"],
        ["facts-gpt2"],
        (2,),
        output=Path("b"),
        count=2,
    )
    filler, forgetting, guarded, idle, broken = matrix.cells
    assert (filler.state, filler.reason) == ("n/a", "edits masked models alone")
    assert forgetting.state == "n/a"
    assert "rows, and a bench edits facts" in forgetting.reason
    for cell, said in ((guarded, "the guard stopped it"), (idle, "")):
        assert (cell.state, len(cell.stopped)) == ("done", 1)
        assert said in cell.stopped[0]
        assert cell.score("rewrite", "exact").after == 0
        assert cell.score("attribute", "unchanged").after == 1
        assert cell.delta_bytes is None
    assert broken.state == "failed"
    assert "no luck" in broken.reason
    kept = {path.name.split("-")[2] for path in Path("b/cells").iterdir()}
    assert "broken" not in kept
    page = markdown(matrix)
    assert "n/a: edits masked models alone" in page
    assert "guarded on facts-gpt2, 2 at once: the guard stopped it" in page
    assert len({len(line(matrix, cell)) for cell in matrix.cells} | {len(heads(matrix))}) == 1


def test_a_method_is_given_rows_of_the_type_that_it_takes(methods):
    matrix = bench(["owner"], ["facts-gpt2"], (1,), output=Path("b"), count=1)
    assert [(cell.state, cell.stopped) for cell in matrix.cells] == [("done", ())]


def test_a_directory_is_a_model_with_its_own_cases_and_others_can_be_named(methods, tmp_path):
    directory = hubedit_demo.model_path("facts-llama")
    matrix = bench(["nudge"], [str(directory)], (1,), output=Path("b"), count=1)
    assert matrix.models[0].cases == "cases.jsonl, split test"
    rows = tmp_path / "mine.json"
    rows.write_text(json.dumps([{"prompt": "{} plays the", "subject": "Ana", "target": "oboe"}]))
    mine = bench(["nudge"], [str(directory)], (1,), output=Path("c"), cases=str(rows), count=1)
    assert mine.models[0].case_ids == ("Ana plays the",)
    assert mine.cells[0].score("rewrite", "success") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": ["facts-gpt9"]}, "there is no model 'facts-gpt9'"),
        ({"edits": (900,)}, "too few for 900 edits at once"),
        ({"settings": {"rome": {}}}, "'rome', which is not benched"),
        ({"split": "all"}, "no cases of split 'all'"),
    ],
)
def test_mistakes_are_named(methods, arguments, said):
    given = {"methods": ["nudge"], "models": ["facts-gpt2"], "edits": (1,), **arguments}
    with pytest.raises(RequestError, match=said):
        bench(
            given.pop("methods"), given.pop("models"), given.pop("edits"), output=Path("b"), **given
        )


def test_a_directory_that_holds_something_else_is_left_alone(methods):
    Path("kept").mkdir()
    Path("kept/file").write_text("")
    with pytest.raises(OutputError, match="something else than a bench"):
        bench(["nudge"], ["facts-gpt2"], (1,), output=Path("kept"))


def test_the_command_prints_a_table_and_writes_json_a_page_and_a_picture(hubedit, methods):
    arguments = ["bench", "--methods", "nudge,filler", "--models", "facts-gpt2", "--edits", "1,2"]
    status, out, err = hubedit(*arguments, "--count", 2, "--set", "nudge.size=0.5", "-o", "b")
    assert status == 0, err
    assert "filler 1: n/a (edits masked models alone)" in out
    assert "nudge" in out
    assert sorted(path.name for path in Path("b").iterdir()) == [
        "bench.json",
        "bench.md",
        "bench.png",
        "cells",
    ]
    written = json.loads(Path("b/bench.json").read_text())
    assert written["cells"][0]["config"] == {"size": 0.5}
    made = len(seen())
    status, out, _ = hubedit(
        *arguments, "--count", 2, "--set", "nudge.size=0.5", "-o", "b", "--json"
    )
    assert status == 0
    assert json.loads(out) == written
    assert len(seen()) == made
    status, _, err = hubedit(*arguments, "--set", "size=1")
    assert (status, "method.key=value" in err) == (1, True)
    status, _, err = hubedit(
        "bench", "--methods", "nudge", "--models", "facts-gpt2", "--edits", "x"
    )
    assert status == 2
    status, _, err = hubedit("bench", "--methods", "nugde", "--models", "facts-gpt2")
    assert "did you mean 'nudge'" in err


def test_cells_are_kept_under_all_that_they_depend_on(tmp_path):
    store = Cells(tmp_path, Cell)
    key = {"model": "a/b", "method": "nudge", "edits": 3, "seed": 0}
    assert store.path(key) != store.path({**key, "seed": 1})
    assert store.path(key).parent == tmp_path / "cells"
    assert "/" not in store.path(key).name
