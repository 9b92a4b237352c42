"""Delta files that grow update by update, and are read the same way."""

import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from delta_sample import BASE, CONTENT, ENCODED, FILES

from hubedit.delta import Delta, Target, encode
from hubedit.errors import BaseMismatchError, DeltaError, DeltaFormatError, EmptyDeltaError
from hubedit.spooling import DeltaWriter
from hubedit.updates import Replace, StoredTensor


def written(path, order) -> tuple[int, str]:
    with DeltaWriter(path, ENCODED.delta.meta) as writer:
        for name in order:
            writer.add(name, ENCODED.delta[name], ENCODED.delta.targets[name])
        for file in FILES:
            writer.add_text(file)
        return writer.finish(ENCODED.delta.aliases)


def test_a_file_that_grew_is_the_same_file(tmp_path):
    path = tmp_path / "delta.safetensors"
    for order in (list(ENCODED.delta), list(ENCODED.delta)[::-1]):
        assert written(path, order) == (len(CONTENT), ENCODED.delta.write(tmp_path / "other"))
        assert path.read_bytes() == CONTENT
        assert {found.name for found in tmp_path.iterdir()} == {"delta.safetensors", "other"}


def test_a_writer_that_was_given_nothing_writes_nothing(tmp_path):
    with DeltaWriter(tmp_path / "delta.safetensors") as writer, pytest.raises(EmptyDeltaError):
        writer.finish()
    with pytest.raises(DeltaError, match="meta"):
        DeltaWriter(tmp_path / "delta.safetensors", {"x": 0.5})
    assert not list(tmp_path.iterdir())


def test_an_open_file_is_read_one_update_at_a_time(tmp_path):
    path, count, size = tmp_path / "delta.safetensors", 8, 1 << 20
    with DeltaWriter(path) as writer:
        for number in range(count):
            tensor = StoredTensor("U8", (size,), np.full(size, number, np.uint8))
            digest = tensor.sha256()
            target = Target("U8", (size,), "0" * 64, digest)
            writer.add(str(number), Replace(tensor), target)
        writer.finish()
    tracemalloc.start()
    delta = Delta.read(path)
    for number, name in enumerate(delta):
        assert delta[name].values.data[-1] == number
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * size


def test_a_file_that_changes_after_it_was_opened_makes_no_wrong_tensor(tmp_path):
    path = tmp_path / "delta.safetensors"
    path.write_bytes(CONTENT)
    delta = Delta.read(path)
    start = CONTENT.index(delta["whole.bias"].values.data.tobytes())
    with closing(path.open("r+b")) as file:
        file.seek(start)
        file.write(b"\x01\x02\x03\x04\x05\x06\x07")
    with pytest.raises(DeltaError, match="damaged"):
        delta.apply("whole.bias", BASE["whole.bias"])
    path.write_bytes(CONTENT[: len(CONTENT) // 2])
    with pytest.raises(DeltaError):
        dict(delta)


def test_a_recorded_file_is_opened_if_it_is_that_file(tmp_path):
    path = tmp_path / "delta.safetensors"
    digest = ENCODED.delta.write(path)
    delta = Delta.open_verified(path, digest, "it")
    assert delta.to_bytes() == CONTENT
    assert delta.kinds == ENCODED.delta.kinds
    with pytest.raises(DeltaFormatError, match="not the file that was recorded"):
        Delta.open_verified(path, "0" * 64, "it")


def test_steps_are_taken_back_to_the_bits_before():
    delta = Delta.read(CONTENT)
    for name in ("moved.weight", "partly.weight"):
        assert delta.undo(name, ENCODED.after[name]) == BASE[name]
        with pytest.raises(BaseMismatchError, match=name):
            delta.undo(name, BASE[name])
    with pytest.raises(DeltaError, match="does not hold what was before"):
        delta.undo("whole.bias", ENCODED.after["whole.bias"])


def test_a_lying_frame_takes_nothing_back():
    one, other = np.zeros(4000, np.uint32), np.arange(4000, dtype=np.uint32)
    before, after = StoredTensor.from_array(one), StoredTensor.from_array(other)
    delta = encode({"w": after}, lambda _: before).delta
    assert delta["w"].kind == "packed"
    target = delta.targets["w"]
    lying = {"w": Target(target.dtype, target.shape, "0" * 64, target.after)}
    with pytest.raises(DeltaError, match="another tensor"):
        Delta(delta.updates, lying).undo("w", after)
