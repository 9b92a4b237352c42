"""The files of a model: read by ranges, and hashed."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stored_models import FIRST, INDEX, SECOND, header_of, tensors, write_sharded, write_single

from hubedit.checkpoint import CHUNK
from hubedit.errors import UnsupportedModelError
from hubedit.shards import Checkpoint, DirectorySource, sha256_file, sha256_files
from hubedit.updates import StoredTensor


@pytest.fixture
def single(tmp_path):
    return write_single(tmp_path)


@pytest.fixture
def sharded(tmp_path):
    return write_sharded(tmp_path)


@pytest.fixture(params=["single", "sharded"])
def model(request):
    return request.getfixturevalue(request.param)


def test_every_tensor_is_read_as_it_was_saved(model):
    checkpoint = Checkpoint.open(model)
    assert list(checkpoint.tensors) == sorted(tensors())
    for name, tensor in tensors().items():
        found = checkpoint.read(name)
        assert found == StoredTensor.from_array(tensor)
        info = checkpoint.tensors[name]
        assert (info.dtype, info.shape) == (found.dtype, tuple(tensor.shape))
        assert (model / info.file).read_bytes()[info.begin : info.end] == found.data.tobytes()


def test_hashes_are_those_of_the_tensors(model):
    checkpoint = Checkpoint.open(DirectorySource(model))
    expected = {name: StoredTensor.from_array(t).sha256() for name, t in tensors().items()}
    assert checkpoint.hash() == expected
    assert checkpoint.hash(["b.weight"], workers=1) == {"b.weight": expected["b.weight"]}


def test_a_tensor_longer_than_what_is_read_at_once_has_the_hash_of_its_bytes(tmp_path):
    long = torch.arange(251, dtype=torch.uint8).repeat(2 * CHUNK // 251 + 1)
    assert len(long) > 2 * CHUNK
    save_file({"long": long}, tmp_path / "model.safetensors")
    found = Checkpoint.open(tmp_path).hash()
    assert found == {"long": StoredTensor.from_array(long).sha256()}


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
