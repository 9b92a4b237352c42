"""Copies of a model's files with some tensors changed, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stored_models import FIRST, INDEX, SECOND, header_of, tensors, write_sharded, write_single

from hubedit.errors import DeltaError, OutputError
from hubedit.shards import Checkpoint, materialize
from hubedit.updates import StoredTensor

NEW = {
    "a.weight": StoredTensor.from_array(torch.full((6, 5), 2.5)),
    "e.weight": StoredTensor.from_array(torch.tensor([1, 2, 3]).half()),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def single(tmp_path):
    return write_single(tmp_path)


@pytest.fixture
def sharded(tmp_path):
    return write_sharded(tmp_path)


@pytest.fixture(params=["single", "sharded"])
def model(request):
    return request.getfixturevalue(request.param)


def test_a_copy_differs_in_the_changed_tensors_alone(model, tmp_path):
    before = contents(model)
    materialize(model, tmp_path / "out", NEW)
    assert contents(model) == before
    found = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        assert header_of(path) == header_of(model / path.name)
        assert not path.is_symlink()
        found |= load_file(path)
    expected = tensors() | {
        "a.weight": torch.full((6, 5), 2.5),
        "e.weight": torch.tensor([1, 2, 3]),
    }
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.to(found[name].dtype))
    assert (tmp_path / "out" / "config.json").read_bytes() == before["config.json"]
    assert set(contents(tmp_path / "out")) == set(before)


def test_changes_may_be_functions_called_one_at_a_time(single, tmp_path):
    asked = []

    def make(name):
        asked.append(name)
        return NEW[name]

    materialize(single, tmp_path / "out", {name: (lambda n=name: make(n)) for name in NEW})
    assert asked == sorted(NEW)
    assert Checkpoint.open(tmp_path / "out").read("a.weight") == NEW["a.weight"]


def test_weights_that_would_stay_unedited_and_hidden_files_are_not_copied(single, tmp_path):
    for name in ("pytorch_model.bin", "tf_model.h5", "other.safetensors", ".secret", "model.gguf"):
        (single / name).write_bytes(b"x")
    for folder in (".git", "onnx", "sub"):
        (single / folder).mkdir()
        (single / folder / "file.txt").write_bytes(b"x")
    (single / "onnx" / "model.onnx").write_bytes(b"x")
    materialize(single, tmp_path / "out", NEW)
    assert set(contents(tmp_path / "out")) == {
        "config.json",
        "model.safetensors",
        "onnx/file.txt",
        "sub/file.txt",
    }


def test_files_can_be_chosen(sharded, tmp_path):
    names = [FIRST, SECOND, INDEX]
    materialize(sharded, tmp_path / "out", NEW, files=names)
    assert set(contents(tmp_path / "out")) == set(names)
    with pytest.raises(DeltaError, match="not among the files"):
        materialize(sharded, tmp_path / "less", NEW, files=[FIRST, INDEX])
    for name in ("absent", "../blobs/config.json", "/etc/hosts", "a/../config.json", ""):
        with pytest.raises(OutputError):
            materialize(sharded, tmp_path / "bad", NEW, files=[*names, name])
    assert not (tmp_path / "bad").exists()


def test_small_files_are_written_instead_of_copied_or_beside(sharded, tmp_path):
    before = contents(sharded)
    texts = {"config.json": b"{}", "chat_template.jinja": b"new"}
    materialize(sharded, tmp_path / "out", NEW, texts=texts, link=True)
    found = contents(tmp_path / "out")
    assert {name: found[name] for name in texts} == texts
    assert set(found) == {*before, *texts}
    assert contents(sharded) == before
    for name in (FIRST, INDEX, "../outside", "/tmp/outside"):
        with pytest.raises(OutputError):
            materialize(sharded, tmp_path / "bad", NEW, texts={name: b""})
    assert not (tmp_path / "bad").exists()


def test_untouched_files_are_linked_only_when_asked(sharded, tmp_path):
    only_first = {"a.weight": NEW["a.weight"]}
    materialize(sharded, tmp_path / "copied", only_first)
    materialize(sharded, tmp_path / "linked", only_first, link=True)
    second = (sharded / SECOND).stat()
    assert (tmp_path / "copied" / SECOND).stat().st_ino != second.st_ino
    assert (tmp_path / "linked" / SECOND).stat().st_ino == second.st_ino
    assert (tmp_path / "linked" / FIRST).stat().st_ino != (sharded / FIRST).stat().st_ino
    assert contents(tmp_path / "copied") == contents(tmp_path / "linked")


def test_a_copy_without_sharing_blocks_is_the_same(single, tmp_path, monkeypatch):
    materialize(single, tmp_path / "one", NEW)
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    materialize(single, tmp_path / "two", NEW)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_empty_directory_becomes_the_target_and_another_is_left_alone(single, tmp_path):
    (tmp_path / "empty").mkdir()
    materialize(single, tmp_path / "empty", NEW)
    assert "model.safetensors" in contents(tmp_path / "empty")
    for target in (tmp_path / "empty", single, single / "config.json"):
        before = contents(tmp_path)
        with pytest.raises(OutputError, match="already exists"):
            materialize(single, target, NEW)
        assert contents(tmp_path) == before


def test_a_copy_needs_the_memory_of_one_tensor(tmp_path):
    model = tmp_path / "large"
    model.mkdir()
    every = {f"t{number}": torch.full((1 << 18,), float(number)) for number in range(24)}
    save_file(every, model / "model.safetensors")
    zeros = {name: lambda: StoredTensor.from_array(np.zeros(1 << 18, np.float32)) for name in every}
    tracemalloc.start()
    materialize(model, tmp_path / "out", zeros)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20
    assert all(
        not tensor.any() for tensor in load_file(tmp_path / "out/model.safetensors").values()
    )


def test_progress_reaches_the_size_of_all_files(sharded, tmp_path):
    seen = []
    materialize(sharded, tmp_path / "out", NEW, progress=lambda *step: seen.append(step))
    sizes = {name: len(content) for name, content in contents(sharded).items()}
    assert [name for name, _, _ in seen] == sorted(sizes)
    assert seen[-1][1:] == (sum(sizes.values()), sum(sizes.values()))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_nothing_is_left_of_a_copy_that_was_interrupted(sharded, tmp_path, failure, when):
    steps = []

    def stop(*step):
        steps.append(step)
        if len(steps) == when:
            raise failure

    before = contents(tmp_path)
    with pytest.raises(failure):
        materialize(sharded, tmp_path / "out", NEW, progress=stop)
    assert contents(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"blobs", "sharded"}


KILLED = """
import os, signal, sys
from hubedit.shards import materialize
materialize(sys.argv[1], sys.argv[2], {}, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_copy_that_was_killed_does_not_look_finished(single, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, single, tmp_path / "out"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.*.partial"))) == 1
    materialize(single, tmp_path / "out", NEW)
    assert "model.safetensors" in contents(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"single", "out"}


def test_a_failing_tensor_leaves_nothing(single, tmp_path):
    def fail():
        raise DeltaError("no")

    with pytest.raises(DeltaError, match="no"):
        materialize(single, tmp_path / "out", {"a.weight": fail})
    assert {path.name for path in tmp_path.iterdir()} == {"single"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("x.weight", np.zeros((6, 5), np.float32), "no tensor"),
        ("a.weight", np.zeros((5, 6), np.float32), "stored as F32"),
        ("a.weight", np.zeros((6, 5), np.float16), "stored as F32"),
    ],
)
def test_a_tensor_that_does_not_fit_its_place_is_refused(single, tmp_path, name, value, reason):
    with pytest.raises(DeltaError, match=reason):
        materialize(single, tmp_path / "out", {name: StoredTensor.from_array(value)})
    assert not (tmp_path / "out").exists()


@contextmanager
def bound_by_permissions():
    """Work as a user whom permissions bind: root may write anywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_target_that_cannot_be_written_is_refused(single):
    with tempfile.TemporaryDirectory() as folder:  # others cannot enter pytest's own
        Path(folder).chmod(0o755)
        source, locked = Path(folder, "source"), Path(folder, "locked")
        shutil.copytree(single, source)
        for path in source.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        locked.mkdir(mode=0o555)
        with bound_by_permissions(), pytest.raises(OutputError, match="cannot be written"):
            materialize(source, locked / "out", NEW)
        assert not (locked / "out").exists()


def test_a_target_below_a_file_is_refused(single):
    with pytest.raises(OutputError, match="cannot be written"):
        materialize(single, single / "config.json" / "out", NEW)


def test_two_copies_at_once_do_not_meet(single, tmp_path):
    targets = [tmp_path / f"out{number}" for number in range(4)]
    threads = [
        threading.Thread(target=materialize, args=(single, target, NEW)) for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(contents(target) == contents(targets[0]) for target in targets)
