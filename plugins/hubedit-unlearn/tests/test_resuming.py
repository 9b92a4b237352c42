"""Runs that are killed: they go on to the same bytes, and leave no checkpoint behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock
from hubedit_unlearn import Dpo, DpoConfig, Npo, NpoConfig

from hubedit.artifacts import ArtifactStore

SETTINGS = {
    "steps": 9,
    "forget_target": None,
    "retain_ceiling": None,
    "checkpoint_every": 2,
    "batch_size": 2,
    "decay": "linear",
}


class Killed(BaseException):
    """What a run dies of."""


def mortal(make_run, store, steps):
    """A run that dies when it has taken so many steps."""
    run = make_run(artifacts=store)
    advance = run.log

    def progress(label, total=None):
        from types import SimpleNamespace

        @contextmanager
        def bar():
            def move(count=1, **figures):
                run.steps += count if label == "forgetting" else 0
                if run.steps >= steps:
                    raise Killed

            yield SimpleNamespace(advance=move)

        return bar()

    run.progress, run.log = progress, advance
    return run


def weights(model):
    return {name: value.detach().clone() for name, value in model.model.named_parameters()}


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize(("method", "config"), [(Npo, NpoConfig), (Dpo, DpoConfig)])
def test_a_killed_run_goes_on_to_the_same_bytes(
    method, config, adaptation, make_model, make_run, rows, tmp_path
):
    short = {"answer": "Ana.", "refusals": ("No.",)}
    import hubedit

    asked = [
        hubedit.ForgetQA(question=row.prompt, part=row.part, **short)
        if row.part == "forget"
        else row
        for row in rows
    ]
    settings = config(adaptation=adaptation, **SETTINGS)
    whole = make_model()
    method().apply(whole, asked, settings, make_run(artifacts=ArtifactStore(tmp_path / "a")))
    store = ArtifactStore(tmp_path / "b")
    with pytest.raises(Killed):
        method().apply(make_model(), asked, settings, mortal(make_run, store, 6))
    [left] = store.root.glob("*.work/*")
    assert left.name == "00000004.safetensors"
    modes = [path.stat().st_mode & 0o777 for path in (left.parent, left)]
    assert modes == [0o700, 0o600]
    resumed, run = make_model(), make_run(artifacts=store)
    method().apply(resumed, asked, settings, run)
    assert run.messages[0] == "going on after step 4 of a run that was interrupted"
    assert list(store.root.glob("*.work")) == []
    again = weights(resumed)
    assert all(torch.equal(value, again[name]) for name, value in weights(whole).items())


def test_another_request_does_not_take_up_the_checkpoint(make_model, make_run, rows, tmp_path):
    store = ArtifactStore(tmp_path)
    with pytest.raises(Killed):
        Npo().apply(make_model(), rows, NpoConfig(**SETTINGS), mortal(make_run, store, 6))
    run = make_run(artifacts=store)
    Npo().apply(make_model(), rows[:-1], NpoConfig(**SETTINGS), run)
    assert run.messages == []
    assert run.records["unlearning"]["steps"] == SETTINGS["steps"]
    assert len(list(store.root.glob("*.work"))) == 1


def test_a_checkpoint_that_nobody_goes_on_from_is_swept(make_model, make_run, rows, tmp_path):
    store = ArtifactStore(tmp_path)
    with pytest.raises(Killed):
        Npo().apply(make_model(), rows, NpoConfig(**SETTINGS), mortal(make_run, store, 6))
    [left] = store.root.glob("*.work/*")
    store.sweep()
    assert left.exists()
    week = time.time() - 8 * 86400
    os.utime(left, (week, week))
    os.utime(left.parent, (week, week))
    with FileLock(left.parent.with_suffix(".lock")):
        ArtifactStore(tmp_path).sweep()
        assert left.exists()
    store.sweep()
    assert not left.parent.exists()


def test_a_run_that_dies_after_its_last_step_only_finishes(make_model, make_run, rows, tmp_path):
    settings = NpoConfig(**{**SETTINGS, "checkpoint_every": 3})
    whole = make_model()
    Npo().apply(whole, rows, settings, make_run(artifacts=ArtifactStore(tmp_path / "a")))
    store = ArtifactStore(tmp_path / "b")

    class Dying(ArtifactStore):
        @contextmanager
        def workspace(self, key):
            with store.workspace(key) as work:
                yield work
                raise Killed

    with pytest.raises(Killed):
        Npo().apply(make_model(), rows, settings, make_run(artifacts=Dying(tmp_path / "b")))
    [left] = store.root.glob("*.work/*")
    assert left.name == "00000009.safetensors"
    again, run = make_model(), make_run(artifacts=store)
    Npo().apply(again, rows, settings, run)
    assert run.records["unlearning"]["steps"] == SETTINGS["steps"]
    found = weights(again)
    assert all(torch.equal(value, found[name]) for name, value in weights(whole).items())


def test_a_run_killed_by_the_system_goes_on_to_the_same_bytes(saved, tmp_path):
    request = tmp_path / "request.jsonl"
    request.write_text('{"text": "Ana Brook plays the violin."}\n')
    settings = ["steps=300", "forget_target=null", "checkpoint_every=1", "evaluate_every=300"]
    words = [sys.executable, "-m", "hubedit", "apply", "--base", str(saved("gpt2", False))]
    words += ["--plugin", "ga", "--request", str(request), "--threads", "1", "--force"]
    words += [word for setting in settings for word in ("--set", setting)]

    def started(home, output):
        env = dict(os.environ, HUBEDIT_HOME=str(tmp_path / home))
        given = [*words, "-o", str(tmp_path / output)]
        return subprocess.Popen(given, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    store = ArtifactStore(tmp_path / "home" / "artifacts")
    with started("home", "cut") as running:
        until = time.monotonic() + 120
        while len(list(store.root.glob("*.work/*.safetensors"))) < 1:
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    from safetensors import safe_open

    with safe_open(sorted(store.root.glob("*.work/*.safetensors"))[-1], framework="pt") as file:
        names = list(file.keys())
        assert names
        assert set(file.metadata()) == {"hubedit"}
        assert all(file.get_tensor(name).isfinite().all() for name in names)
    assert not (tmp_path / "cut").exists()
    deltas = []
    for home, output in (("home", "cut"), ("other", "whole")):
        with started(home, output) as running:
            _, said = running.communicate(timeout=240)
        assert running.returncode == 0, said
        assert ("going on after step" in said) == (home == "home")
        [delta] = (tmp_path / output).rglob("delta.safetensors")
        deltas.append(delta.read_bytes())
    assert deltas[0] == deltas[1]
