"""The files of a model: read by ranges, hashed, and copied with some tensors changed."""

import hashlib
import json
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.errors import DeltaError, OutputError, UnsupportedModelError
from hubedit.shards import Checkpoint, DirectorySource, materialize, sha256_file, sha256_files
from hubedit.updates import StoredTensor

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(6, 5),
        "b.weight": torch.randn(7, 3).bfloat16(),
        "c.ids": torch.arange(4),
        "d.empty": torch.zeros(0, 3),
        "e.weight": torch.randn(3).half(),
    }


@pytest.fixture
def single(tmp_path) -> Path:
    """A model in one file."""
    model = tmp_path / "single"
    model.mkdir()
    save_file(tensors(), model / "model.safetensors", metadata={"format": "pt", "by": "hand"})
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    return model


@pytest.fixture
def sharded(tmp_path) -> Path:
    """The same model in two shards, as the Hub's cache has it: links to files elsewhere."""
    blobs, model = tmp_path / "blobs", tmp_path / "sharded"
    blobs.mkdir()
    model.mkdir()
    every = tensors()
    parts = {FIRST: ["a.weight", "c.ids"], SECOND: ["b.weight", "d.empty", "e.weight"]}
    for shard, names in parts.items():
        save_file({name: every[name] for name in names}, blobs / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, names in parts.items() for name in names}
    (blobs / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (blobs / "config.json").write_text("{}")
    for path in blobs.iterdir():
        (model / path.name).symlink_to(Path("..", "blobs", path.name))
    return model


@pytest.fixture(params=["single", "sharded"])
def model(request) -> Path:
    return request.getfixturevalue(request.param)


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


def header_of(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: 8 + struct.unpack("<Q", content[:8])[0]]


# -- reading ------------------------------------------------------------------------------------


def test_every_tensor_is_read_as_it_was_saved(model):
    checkpoint = Checkpoint.open(model)
    assert list(checkpoint.tensors) == sorted(tensors())
    for name, tensor in tensors().items():
        found = checkpoint.read(name)
        assert found == StoredTensor.from_array(tensor)
        info = checkpoint.tensors[name]
        assert (info.dtype, info.shape) == (found.dtype, tuple(tensor.shape))
        assert (model / info.file).read_bytes()[info.begin : info.end] == found.data.tobytes()


def test_hashes_are_those_of_the_tensors(model, monkeypatch):
    monkeypatch.setattr("hubedit.checkpoint.CHUNK", 7)
    checkpoint = Checkpoint.open(DirectorySource(model))
    expected = {name: StoredTensor.from_array(t).sha256() for name, t in tensors().items()}
    assert checkpoint.hash() == expected
    assert checkpoint.hash(["b.weight"], workers=1) == {"b.weight": expected["b.weight"]}


class Counting:
    """A source of ranges that counts the bytes it gave."""

    def __init__(self, model: Path) -> None:
        self.inner, self.given = DirectorySource(model), 0

    def files(self):
        return self.inner.files()

    def read(self, file, begin, end):
        assert 0 <= begin <= end <= self.files()[file]
        self.given += end - begin
        return self.inner.read(file, begin, end)


def test_any_source_of_ranges_will_do_and_only_what_is_asked_for_is_read(tmp_path):
    save_file({"big": torch.zeros(300_000), "small": torch.ones(2)}, tmp_path / "model.safetensors")
    source = Counting(tmp_path)
    checkpoint = Checkpoint.open(source)
    assert source.given <= 1 << 16
    source.given = 0
    assert checkpoint.read("small").to_float32().tolist() == [1, 1]
    assert source.given == 8


def test_an_unknown_tensor_is_named_with_its_neighbours(single):
    with pytest.raises(UnsupportedModelError, match=r"did you mean 'a\.weight'"):
        Checkpoint.open(single).read("a.weigth")


def test_pickles_are_refused_with_the_reason(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsupportedModelError, match="pickle"):
        Checkpoint.open(tmp_path)


def test_a_directory_without_model_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"neither model\.safetensors"):
        Checkpoint.open(tmp_path)
    with pytest.raises(UnsupportedModelError, match="no directory"):
        Checkpoint.open(tmp_path / "absent")


def test_a_shard_that_is_cut_off_is_refused(model):
    shard = sorted(model.glob("*.safetensors"))[0].resolve()
    content = shard.read_bytes()
    for end in (0, 7, 40, len(content) - 1):
        shard.write_bytes(content[:end])
        with pytest.raises(UnsupportedModelError, match="damaged"):
            Checkpoint.open(model)


def test_a_shard_that_shrinks_after_it_was_opened_is_refused(single):
    checkpoint = Checkpoint.open(single)
    path = single / "model.safetensors"
    path.write_bytes(header_of(path))
    with pytest.raises(UnsupportedModelError, match="ends within"):
        checkpoint.read("a.weight")
    with pytest.raises(UnsupportedModelError, match="ends within"):
        checkpoint.hash()


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("not json", "damaged"),
        ("[]", "no weight_map"),
        ('{"weight_map": {"a.weight": 1}}', "no weight_map"),
        (json.dumps({"weight_map": {"a.weight": "../blobs/" + FIRST}}), "not there"),
        (json.dumps({"weight_map": {"a.weight": "/etc/passwd"}}), "not there"),
        (json.dumps({"weight_map": {"a.weight": SECOND}}), "it does not"),
        (json.dumps({"weight_map": {"x": FIRST}}), "it does not"),
        ('{"weight_map": {"a.weight": "x", "a.weight": "y"}}', "twice"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(sharded, index, reason):
    (sharded / INDEX).unlink()
    (sharded / INDEX).write_text(index)
    with pytest.raises(UnsupportedModelError, match=reason):
        Checkpoint.open(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded):
    every = tensors()
    (sharded / SECOND).unlink()
    save_file({name: every[name] for name in every if name != "c.ids"}, sharded / SECOND)
    with pytest.raises(UnsupportedModelError, match="both"):
        Checkpoint.open(sharded)


def test_a_tensor_that_the_index_forgot_is_not_lost(sharded):
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["e.weight"]
    (sharded / INDEX).unlink()
    (sharded / INDEX).write_text(json.dumps(index))
    assert "e.weight" in Checkpoint.open(sharded).tensors


# -- digests of files ---------------------------------------------------------------------------


def aged(path: Path, content: bytes, seconds: int = 100) -> Path:
    path.write_bytes(content)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))
    return path


def test_files_are_hashed_by_content_through_links(tmp_path):
    first, second = aged(tmp_path / "one", b"1"), aged(tmp_path / "two", b"22")
    link = tmp_path / "link"
    link.symlink_to(first)
    found = sha256_files([first, second, link])
    assert found == {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second, link)
    }
    assert sha256_file(second) == found[second]


def test_digests_are_remembered_until_the_file_changes(tmp_path):
    cache, path = tmp_path / "cache" / "digests.json", aged(tmp_path / "file", b"1")
    truth = sha256_file(path, cache)
    known = json.loads(cache.read_text())
    ((real, (stamp, digest)),) = known.items()
    assert (real, digest) == (str(path.resolve()), truth)
    cache.write_text(json.dumps({real: [stamp, "f" * 64]}))
    assert sha256_file(path, cache) == "f" * 64
    aged(path, b"2", seconds=50)
    assert sha256_file(path, cache) == hashlib.sha256(b"2").hexdigest()


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    cache, path = tmp_path / "digests.json", tmp_path / "file"
    path.write_bytes(b"1")
    sha256_file(path, cache)
    status = path.stat()
    path.write_bytes(b"2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sha256_file(path, cache) == hashlib.sha256(b"2").hexdigest()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"x": 1}', b'{"x": [1, 2, 3]}', b"\xff"])
def test_a_damaged_cache_is_ignored(tmp_path, content):
    cache, path = tmp_path / "digests.json", aged(tmp_path / "file", b"1")
    cache.write_bytes(content)
    assert sha256_file(path, cache) == hashlib.sha256(b"1").hexdigest()
    assert len(json.loads(cache.read_text())) == 1


# -- copies -------------------------------------------------------------------------------------


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
    import tracemalloc

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
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", KILLED, single, tmp_path / "out"], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "out").exists()
    materialize(single, tmp_path / "out", NEW)
    assert "model.safetensors" in contents(tmp_path / "out")


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_target_that_cannot_be_written_is_refused(single, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        materialize(single, locked / "out", NEW)


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
