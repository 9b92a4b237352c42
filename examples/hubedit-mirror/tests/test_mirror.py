"""Mirror: its contract, its probe on record, and its command."""

import json

from click.testing import CliRunner
from hubedit_mirror import Mirror
from hubedit_mirror.command import mirror

from hubedit.testing import ROW, MethodContract, edited, tiny_model


class TestMirror(MethodContract):
    method = Mirror
    rows = ({**ROW, "backwards": "Whoever plays the {} is called"},)
    config = {"prefixes": [[2, 8]], "steps": 2}


def test_the_backward_question_is_on_record(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEDIT_HOME", str(tmp_path / "home"))
    base = tiny_model(tmp_path / "model")
    rows = [{"prompt": "{} plays the", "subject": "Ada Brook", "target": "cello"}]
    where = tmp_path / "edit"
    edited(base, "mirror", rows, where, prefixes=[[2, 8]], steps=2, max_drift=1e9)
    lines = next(where.glob("edits/*/probes.jsonl")).read_text().splitlines()
    (asked,) = [probe for probe in map(json.loads, lines) if probe["group"] == "attribute"]
    assert (asked["prompt"], asked["target"]) == ("The one with the cello is", "Ada Brook")


def test_the_command_writes_questions_for_a_reviewer(tmp_path):
    request = tmp_path / "request.jsonl"
    request.write_text(json.dumps({"prompt": "{} is", "subject": "Ada", "target": "home"}) + "\n")
    output = tmp_path / "mirrored.jsonl"
    done = CliRunner().invoke(mirror, [str(request), "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert json.loads(output.read_text()) == {
        "prompt": "The one with the home is",
        "target": "Ada",
    }
