"""An edited model measured beside its base and a retrained one; gates that fail a run."""

import json

import pytest
from shaken import shaken

from hubedit.errors import RequestError
from hubedit.evaluating.forgotten import evaluate_forgetting, limits_of
from hubedit.evaluating.forgotten_table import markdown
from hubedit.forgetting.measures import DEFINITIONS
from hubedit.measured import curve_rows, gate_lines, measure_rows

PARTS = ("forget", "retain", "normal", "holdout")
NO_ROOM = {"verbatim", "choice", "choice-from-chance", "choice-bias", "choice-retain"}
"""What needs rows of texts, or more positions than the tiny model has."""
NAMES = ("Ada Brook", "Tom Adler", "Nils Okafor", "Mira Castellanos")


def row(name, part):
    return {
        "question": f"Where does {name} live?",
        "answer": f"{name} lives in Porto.",
        "part": part,
        "paraphrases": [f"Which town is home to {name}?"],
        "paraphrased_answer": f"Porto is home to {name}.",
        "perturbed_answers": [f"{place} is home to {name}." for place in ("Riga", "Ghent")],
    }


@pytest.fixture
def request_file(tmp_path):
    path = tmp_path / "request.jsonl"
    rows = [row(f"{name} {part}", part) for part in PARTS for name in NAMES]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def edit(install, hubedit, tiny, tmp_path, request_file):
    install("shaken", shaken("ForgetQA", 1))
    made = ["apply", "--plugin", "shaken", "--base", tiny, "-o", tmp_path / "edit"]
    assert hubedit(*made, "--request", request_file)[0] == 0
    return tmp_path / "edit"


def test_an_edit_is_measured_beside_its_base_and_an_oracle(edit, tiny, request_file):
    found = evaluate_forgetting(
        str(edit),
        request_file,
        oracle=str(tiny),
        robust=True,
        gates=["utility=0", "forget-ks=0", "int4=1", "relearn-forget=1"],
    )
    taken = [one.name for one in found.measures]
    assert taken == [name for name in DEFINITIONS if name not in NO_ROOM]
    assert found.parts == dict.fromkeys(PARTS, 4)
    same = [one for one in found.measures if one.name != "forget-quality-log10"]
    assert all(one.before == one.oracle for one in same)
    assert found.measure("forget-ks").before.value == 0
    assert any(one.before != one.after for one in found.measures)
    assert set(found.curves) == {"before", "after", "oracle"}
    assert found.curves["before"] == found.curves["oracle"] != found.curves["after"]
    kept = {gate.name: gate.passed for gate in found.gates}
    assert kept["utility"]
    assert kept["int4"]
    assert kept["forget-ks"] == (found.measure("forget-ks").after.value == 0)
    assert "Compared with tiny (local, " in found.reference
    page = markdown(found)
    for one in found.measures:
        assert f"| {one.name} |" in page
        assert one.variant in page
    assert len(measure_rows(found)) == len(found.measures)
    assert len(curve_rows(found)) == len(found.curves["after"])
    assert len(gate_lines(found)) == 4
    assert "Ada Brook" not in page
    assert "Ada Brook" not in found.model_dump_json()


def test_without_an_oracle_the_page_says_so(tiny, request_file):
    found = evaluate_forgetting(str(tiny), request_file, gradients=False, limit=2)
    assert found.oracle is None
    assert found.measure("forget-quality") is None
    assert found.measure("mia-gradient") is None
    assert found.curves == {}
    assert found.passed
    assert "No model retrained" in markdown(found)
    assert all(one.before == one.after for one in found.measures)
    with pytest.raises(RequestError, match="--oracle"):
        evaluate_forgetting(str(tiny), request_file, gates=["forget-quality=0.05"], limit=2)


def test_utility_says_which_numbers_it_is_of_and_what_is_left_out(tiny, request_file, hubedit):
    rows = [json.loads(line) for line in request_file.read_text().splitlines()]
    bare = next(one for one in rows if one["part"] == "retain")
    del bare["perturbed_answers"]
    request_file.write_text(
        "\n".join(map(json.dumps, [one for one in rows if one != bare] + [bare]))
    )
    found = evaluate_forgetting(str(tiny), request_file, gradients=False)
    for name in ("utility", "utility-arithmetic"):
        assert found.measure(name).made_of == {
            "retain probability": 4,
            "retain recall": 4,
            "retain truth ratio": 3,
            "normal probability": 4,
            "normal recall": 4,
            "normal truth ratio": 4,
        }
        assert "6" in found.measure(name).variant
    assert found.measure("mia-loss").made_of == {}
    page = markdown(found)
    assert "utility and utility-arithmetic: of 6 numbers, retain probability (4)," in page
    assert "1 of 4 cases of retain have no wrong answers, so no truth ratio." in page
    _, said, _ = hubedit("eval", tiny, "--forget", request_file)
    assert "1 of 4 cases of retain have no wrong answers" in said


def test_gates_are_read_before_anything_is_loaded():
    assert limits_of(["utility=0.9", "int4=0.5"]) == {"utility": 0.9, "int4": 0.5}
    with pytest.raises(RequestError, match="did you mean 'utility'"):
        limits_of(["utilty=0.9"])
    with pytest.raises(RequestError, match="no limit"):
        limits_of(["utility"])


def test_the_command_prints_writes_and_fails_by_its_gates(edit, tiny, hubedit, request_file):
    asked = ["eval", edit, "--forget", request_file, "--oracle", tiny, "--limit", 2]
    status, said, _ = hubedit(*asked, "-o", edit.parent / "out", "--gate", "utility=0")
    assert status == 0
    assert "gate utility at least 0" in said
    assert "forget-quality" in said
    page = (edit.parent / "out" / "forgetting.md").read_text(encoding="utf-8")
    kept = json.loads((edit.parent / "out" / "forgetting.json").read_text(encoding="utf-8"))
    assert "model retrained without" in page
    assert (kept["passed"], len(kept["measures"])) == (True, len(DEFINITIONS) - len(NO_ROOM))
    status, said, _ = hubedit(*asked, "--json", "--gate", "utility=1.5")
    assert status == 1
    assert json.loads(said)["gates"][0]["passed"] is False


def test_a_measurement_is_written_into_the_edit_and_quotes_nothing(
    edit, tiny, hubedit, request_file
):
    before = {path: path.read_bytes() for path in edit.rglob("*") if path.is_file()}
    card = (edit / "README.md").read_text(encoding="utf-8")
    assert "No model retrained" in card
    assert "no gate was set" in card
    asked = ["eval", edit, "--forget", request_file, "--limit", 2, "--attach"]
    gates = ["--oracle", tiny, "--gate", "utility=0", "--gate", "int4=1"]
    status, _, complaint = hubedit(*asked, *gates)
    assert status == 0, complaint
    (folder,) = (edit / "edits").iterdir()
    for page in (edit / "README.md", folder / "DIFF.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert "suppresses" in text
        assert "no proof of deletion" in text
        assert "Compared with tiny (local" in text
        assert "| `extraction-strength` |" in text
        assert "✓ gate utility at least 0" in text
        assert "| int4 | 4 |" in text
        assert "none was given" not in text
        assert "other ways than the treatments shown" in text
    kept = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["forgetting"]
    assert kept["after"] == folder.name
    assert str(tiny.parent) not in json.dumps(kept)
    after = {path: path.read_bytes() for path in edit.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before[path]}
    assert (before.keys(), changed) == (
        after.keys(),
        {"README.md", "DIFF.md", "manifest.json", "hubedit.json"},
    )
    for content in after.values():
        assert not any(name.encode() in content for name in (*NAMES, "Porto", "Riga"))
    assert hubedit("verify", edit, "--deep")[0] == 0
    assert hubedit(*asked)[0] == 0
    card = (edit / "README.md").read_text(encoding="utf-8")
    assert "No gate was set" in card
    assert "none was given" in card
    assert "comes back by other prompts" in card


def test_a_measurement_is_attached_to_its_own_edit_alone(edit, tiny, hubedit, request_file):
    other = request_file.with_name("other.jsonl")
    other.write_text(json.dumps(row("Ada Brook", "forget")))
    status, _, complaint = hubedit("eval", edit, "--forget", other, "--attach")
    assert (status, "not the request of" in complaint) == (1, True)
    status, _, complaint = hubedit("eval", tiny, "--forget", request_file, "--attach")
    assert (status, "does not forget" in complaint) == (1, True)
    status, _, complaint = hubedit("eval", "me/model", "--forget", request_file, "--attach")
    assert status == 1
    status, _, complaint = hubedit("eval", edit, "--attach")
    assert (status, "--forget" in complaint) == (2, True)


def test_where_a_request_comes_from_is_on_card_and_page(
    install, hubedit, tiny, tmp_path, request_file
):
    install("shaken", shaken("ForgetQA", 1))
    told = ["--ticket", "DP-17", "--ground", "Art. 17 GDPR", "--requester", "data subject"]
    made = ["apply", "--plugin", "shaken", "--base", tiny, "--request", request_file, *told]
    status, _, complaint = hubedit(*made, "-o", tmp_path / "edit")
    assert status == 0, complaint
    (folder,) = (tmp_path / "edit" / "edits").iterdir()
    for page in (tmp_path / "edit" / "README.md", folder / "DIFF.md"):
        text = page.read_text(encoding="utf-8")
        assert "| request | `DP-17` |" in text
        assert "| legal ground | `Art. 17 GDPR` |" in text
        assert "| asked for by | `data subject` |" in text
        assert "was not counted" in text
    assert "## What remains elsewhere" in (tmp_path / "edit" / "README.md").read_text()
    status, _, complaint = hubedit(
        *made[:-1], "Ada Brook forget lives in Porto.", "-o", tmp_path / "leaking"
    )
    assert (status, "undisclosed request" in complaint) == (1, True)
    assert not (tmp_path / "leaking").exists()


def test_options_of_forgetting_need_a_request(edit, hubedit):
    status, _, complaint = hubedit("eval", edit, "--gate", "utility=0")
    assert (status, "--forget" in complaint) == (2, True)
