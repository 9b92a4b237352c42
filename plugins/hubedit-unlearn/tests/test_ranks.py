"""Two processes that train one model: what one would have made, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hubedit_unlearn.ranks import Ranks

from hubedit import editions, hub, models
from hubedit.errors import MethodError
from hubedit.testing import tiny_model

TOLERANCE = 1e-5
"""Largest difference of a float32 weight that sums in another order may make."""


def no_hub() -> hub.Hub:
    raise AssertionError("this test works without a Hub")


@pytest.fixture
def recipe(tmp_path):
    """Files of a short run of NPO on a tiny model."""
    base = tiny_model(tmp_path / "base")
    model = models.load(base).model.float()
    model.save_pretrained(base)
    rows = [
        {"question": f"What does number {number} play?", "answer": f"The {thing}.", "part": part}
        for number, (thing, part) in enumerate(
            [
                ("cello", "forget"),
                ("oboe", "forget"),
                ("viola da gamba", "forget"),
                ("organ", "retain"),
                ("old harp", "retain"),
            ]
        )
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"steps": 4, "forget_target": "null", "accumulation": 2, "learning_rate": 1e-3}
    return [
        *["apply", "--base", str(base), "--plugin", "npo", "--request", "rows.jsonl", "--force"],
        *["--threads", "1", "--disclose", "full"],
        *[word for pair in settings.items() for word in ("--set", "=".join(map(str, pair)))],
    ]


def launched(recipe, output, folder, count):
    env = dict(os.environ, HUBEDIT_HOME=str(folder / "home"), ACCELERATE_USE_CPU="true")
    launcher = [sys.executable, "-m"]
    if count > 1:
        launcher += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0", "-m"]
    done = subprocess.run(
        [*launcher, "hubedit", *recipe, "-o", str(output)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_shards_the_weights_is_refused_by_name(name, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(MethodError, match=rf"{name} was asked for.*--multi_gpu"):
        Ranks(torch.device("cpu"))


def test_two_processes_make_what_one_makes_and_the_first_alone_writes(recipe, tmp_path):
    one = launched(recipe, tmp_path / "one", tmp_path, 1)
    two = launched(recipe, tmp_path / "two", tmp_path, 2)
    assert one.count("written to") == two.count("written to") == 1
    start = str(tmp_path / "base")
    found = [editions.edits_of(str(tmp_path / name), no_hub, start) for name in ("one", "two")]
    ranks = [edition.manifests[0].record["unlearning"]["ranks"] for edition in found]
    assert ranks == [1, 2]
    weights = [edition.overlay() for edition in found]
    assert weights[0].keys() == weights[1].keys()
    base = models.load(tmp_path / "base")
    moved = 0.0
    for name, value in weights[0].items():
        alone, together = value.to_float32(), weights[1][name].to_float32()
        moved = max(moved, float(np.abs(alone - base.start(name).to_float32()).max()))
        np.testing.assert_allclose(together, alone, atol=TOLERANCE, rtol=0)
    assert moved > 100 * TOLERANCE
