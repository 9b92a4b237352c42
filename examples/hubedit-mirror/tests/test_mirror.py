"""Mirror: its contract, its probe on record, and its command."""

import json

from click.testing import CliRunner
from hubedit_mirror import Mirror
from hubedit_mirror.command import mirror

from hubedit.testing import ROW, MethodContract, edited

pytest_plugins = ["hubedit.fixtures", "hubedit_demo.fixtures"]


class TestMirror(MethodContract):
    method = Mirror
    rows = ({**ROW, "backwards": "Whoever plays the {} is called"},)
    config = {"prefixes": [[2, 8]], "steps": 2}


def test_the_backward_question_is_on_record(facts_gpt2, fact_rows, hubedit_home, tmp_path):
    row = {name: fact_rows[0][name] for name in ("prompt", "subject", "target")}
    where = edited(facts_gpt2, "mirror", [row], tmp_path / "edit")
    lines = next(where.glob("edits/*/probes.jsonl")).read_text().splitlines()
    (asked,) = [probe for probe in map(json.loads, lines) if probe["group"] == "attribute"]
    assert asked["prompt"] == f"The one with the {row['target']} is"
    assert asked["target"] == row["subject"]


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
