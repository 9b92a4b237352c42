"""Two processes that train one model: what one would have made, written once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hubedit_unlearn.ranks import Ranks

from hubedit import editions, hub, models
from hubedit.artifacts import ArtifactStore
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


def started(words, folder, *launch):
    """A module or script with its arguments, on two ranks if `launch` says how."""
    env = dict(os.environ, HUBEDIT_HOME=str(folder / "home"), ACCELERATE_USE_CPU="true")
    launcher = [sys.executable]
    if launch:
        launcher += ["-m", "accelerate.commands.launch", *launch, "--num_processes", "2"]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0"]
    return subprocess.Popen(
        [*launcher, *words],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launched(words, folder, *launch):
    """What a module or script printed that ended well, on two ranks if `launch` says how."""
    with started(words, folder, *launch) as running:
        said = running.communicate(timeout=300)
    assert running.returncode == 0, said[1]
    return said


def difference(base, one, two):
    """How far the weights of two edits are apart at most, and how far those of the first moved."""
    editions_ = [editions.edits_of(str(path), no_hub, str(base)) for path in (one, two)]
    weights = [edition.overlay() for edition in editions_]
    assert weights[0].keys() == weights[1].keys()
    start, apart, moved = models.load(base), 0.0, 0.0
    for name, value in weights[0].items():
        alone, together = value.to_float32(), weights[1][name].to_float32()
        apart = max(apart, float(np.abs(alone - together).max()))
        moved = max(moved, float(np.abs(alone - start.start(name).to_float32()).max()))
    records = [edition.manifests[0].record["unlearning"] for edition in editions_]
    return apart, moved, records


def test_deepspeed_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(MethodError, match=r"DeepSpeed was asked for.*--use_fsdp.*--multi_gpu"):
        Ranks(torch.device("cpu"))


def test_what_fails_on_another_rank_is_said_there(recipe, tmp_path):
    env = dict(os.environ, HUBEDIT_HOME=str(tmp_path / "home"), WORLD_SIZE="2", RANK="1")
    words = [word if word != "npo" else "nothing" for word in recipe]
    done = subprocess.run(
        [sys.executable, "-m", "hubedit", *words],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hubedit (process 1): ")
    assert "nothing" in done.stderr


def test_two_processes_make_what_one_makes_and_the_first_alone_writes(recipe, tmp_path):
    one, _ = launched(["-m", "hubedit", *recipe, "-o", "one"], tmp_path)
    two, _ = launched(["-m", "hubedit", *recipe, "-o", "two"], tmp_path, "--multi_gpu")
    assert one.count("written to") == two.count("written to") == 1
    apart, moved, records = difference(*(tmp_path / name for name in ("base", "one", "two")))
    assert [record["ranks"] for record in records] == [1, 2]
    assert moved > 100 * TOLERANCE
    assert apart <= TOLERANCE


SHARDED = [
    ("npo", {}),
    ("npo", {"adaptation": "lora", "retain": "kl"}),
    ("rmu", {}),
    ("kl", {"activation_checkpointing": "true"}),
    ("graddiff", {"train_embeddings": "true", "layers": "[1, 2]"}),
    ("taskvector", {"adaptation": "lora"}),
    ("dpo", {"batch_size": 1, "accumulation": 1}),
    ("jang", {}),
]
"""What sharding could get wrong: kept states, ends in mid-model, blocks that run again, weights
that stay whole, changes after the last step, ranks without a batch, text that is made."""


def test_sharded_blocks_are_trained_as_whole_ones_by_every_kind_of_loss(recipe, tmp_path):
    def words(name, settings, output):
        given = [word for pair in settings.items() for word in ("--set", "=".join(map(str, pair)))]
        plugin = recipe.index("--plugin") + 1
        return [*recipe[:plugin], name, *recipe[plugin + 1 :], *given, "-o", str(output)]

    def done(jobs, *launch):
        todo = tmp_path / "todo.json"
        todo.write_text(json.dumps(jobs))
        return launched([str(Path(__file__).with_name("several.py")), str(todo)], tmp_path, *launch)

    folders = [(tmp_path / f"one-{at}", tmp_path / f"two-{at}") for at in range(len(SHARDED))]
    done([words(*case, one) for case, (one, _) in zip(SHARDED, folders, strict=True)])
    long = {"steps": 60, "checkpoint_every": 1, "evaluate_every": 60, "retain_ceiling": "null"}
    store = ArtifactStore(tmp_path / "home" / "artifacts")
    cut = ["-m", "hubedit", *words("npo", long, tmp_path / "cut")]
    with started(cut, tmp_path, "--use_fsdp") as running:
        until = time.monotonic() + 120
        while not list(store.root.glob("*.work/*.safetensors")):
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)  # the launcher gives it to both ranks, which die of it
        running.communicate(timeout=120)
    whole = [words("npo", long, tmp_path / name) for name in ("cut", "whole")]
    assert not (tmp_path / "cut").exists()
    _, said = done(
        [*(words(*case, two) for case, (_, two) in zip(SHARDED, folders, strict=True)), *whole],
        "--use_fsdp",
    )
    for case, (one, two) in zip(SHARDED, folders, strict=True):
        apart, moved, records = difference(tmp_path / "base", one, two)
        assert [record.get("sharded") for record in records] == [None, True], case
        assert moved > 100 * TOLERANCE, case
        assert apart <= TOLERANCE, case
    assert said.count("of a run that was interrupted") == 1
    apart, _, _ = difference(*(tmp_path / name for name in ("base", "cut", "whole")))
    assert apart == 0.0
