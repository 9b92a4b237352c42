"""A damaged or hostile delta is refused by name, and never read further than it is long."""

import hashlib
import io
import json
import struct

import numpy as np
import pytest
import safetensors.torch
from delta_sample import CONTENT, RNG, low_rank, parsed
from hypothesis import given, settings
from hypothesis import strategies as st

from hubedit.delta import Delta, encode
from hubedit.errors import DeltaFormatError
from hubedit.updates import StoredTensor


def built(header: dict | bytes, data: bytes) -> bytes:
    """A file with that header in canonical form."""
    if isinstance(header, dict):
        header = json.dumps(
            header, sort_keys=True, ensure_ascii=False, separators=(",", ":")
        ).encode("utf-8", "surrogatepass")
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def altered(change) -> bytes:
    """The file with its header and description changed by a function."""
    header, data = parsed()
    described = json.loads(header["__metadata__"]["hubedit"])
    change(header, described)
    if "hubedit" in header.get("__metadata__", {}):
        header["__metadata__"]["hubedit"] = json.dumps(
            described, sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
    return built(header, data)


def test_every_flipped_bit_is_found():
    digest = hashlib.sha256(CONTENT).hexdigest()
    decoded = 0
    for position in range(len(CONTENT)):
        for bit in range(8):
            flipped = bytearray(CONTENT)
            flipped[position] ^= 1 << bit
            with pytest.raises(DeltaFormatError):
                Delta.read_verified(bytes(flipped), digest, "delta.safetensors")
            try:
                delta = Delta.read(bytes(flipped))
            except DeltaFormatError:
                continue
            decoded += 1
            assert delta.to_bytes() == flipped
            assert hashlib.sha256(flipped).hexdigest() != digest
    assert decoded


def test_every_truncation_and_every_longer_file_is_refused():
    for end in range(len(CONTENT)):
        with pytest.raises(DeltaFormatError):
            Delta.read(CONTENT[:end])
    for more in (b"\0", b"\0" * 8, CONTENT):
        with pytest.raises(DeltaFormatError):
            Delta.read(CONTENT + more)


class Watched(io.BytesIO):
    """A file that remembers how far it was read."""

    reached = 0

    def read(self, size=-1):
        assert size is not None
        assert size >= 0
        found = super().read(size)
        self.reached = max(self.reached, self.tell())
        return found


def test_a_long_header_is_refused_before_it_is_read():
    claims = struct.pack("<Q", 2**40) + b"{" + b" " * 100_000
    file = Watched(claims)
    with pytest.raises(DeltaFormatError, match="header claims"):
        Delta.read(file)
    assert file.reached <= 1 << 16
    for length in (100_000_001, 2**63, 2**64 - 1, len(CONTENT)):
        with pytest.raises(DeltaFormatError, match="header claims"):
            Delta.read(struct.pack("<Q", length) + CONTENT[8:])


def put(*path):
    """A change of the header: the last of `path` is put where the others lead."""
    return lambda header, described: _put(header, path)


def say(*path):
    """The same change of the description."""
    return lambda header, described: _put(described, path)


def _put(place: dict, path) -> None:
    *keys, last, value = path
    for key in keys:
        place = place[key]
    place[last] = value


def drop(*keys):
    """A change that takes an entry out of the header, or else of the description."""

    def change(header: dict, described: dict) -> None:
        place = header if keys[0] in header else described
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


LEFT, VALUES = "low.weight::left", "whole.bias::values"
HOSTILE = {
    "format 2 names the way out": (say("format", 2), "pip install -U hubedit"),
    "format true": (say("format", True), "no format"),
    "no format": (drop("format"), "no format"),
    "an unknown kind names the way out": (
        say("tensors", "low.weight", "kind", "wave"),
        "pip install -U hubedit",
    ),
    "a kind that is a list": (say("tensors", "low.weight", "kind", []), "kind"),
    "another kind": (say("tensors", "low.weight", "kind", "sparse"), "stores"),
    "an unknown field": (say("more", 1), "description holds"),
    "no tensors": (say("tensors", {}), "belongs to no update"),
    "neither tensors nor files": (
        lambda header, described: (described["tensors"].clear(), described.pop("files")),
        "no tensors",
    ),
    "tensors as a list": (say("tensors", []), "no tensors"),
    "fractions in meta": (say("meta", {"x": 0.5}), "meta"),
    "meta as a list": (say("meta", []), "meta"),
    "aliases as texts": (say("aliases", {"low.weight": "head"}), "aliases"),
    "aliases out of order": (say("aliases", "low.weight", ["head", "emb"]), "canonical"),
    "a digest in capitals": (
        say("tensors", "low.weight", "after", "A" * 64),
        "no valid digests",
    ),
    "another shape": (say("tensors", "low.weight", "shape", [12, 11]), "do not fit"),
    "a negative side": (say("tensors", "low.weight", "shape", [-12, 10]), "shape"),
    "an overflowing shape": (
        say("tensors", "some.weight", "shape", [2**62, 4]),
        "dtype and shape",
    ),
    "indices out of range": (say("tensors", "some.weight", "shape", [5, 6]), "leave"),
    "another dtype": (say("tensors", "some.weight", "dtype", "BF16"), "F16"),
    "low rank of integers": (say("tensors", "low.weight", "dtype", "I16"), "do not fit"),
    "rows of another width": (say("tensors", "up.weight", "shape", [8, 5]), "rows of the tensor"),
    "rows out of range": (say("tensors", "up.weight", "shape", [3, 6]), "leave"),
    "rows of a vector": (say("tensors", "up.weight", "shape", [48]), "has no rows"),
    "rows of nothing": (say("tensors", "up.weight", "shape", [0, 6]), "has no rows"),
    "rows called columns": (say("tensors", "up.weight", "kind", "columns"), "columns of the"),
    "columns out of range": (say("tensors", "down.weight", "shape", [6, 6]), "leave"),
    "columns of another height": (say("tensors", "down.weight", "shape", [5, 8]), "columns of the"),
    "columns of another dtype": (say("tensors", "down.weight", "dtype", "BF16"), "F16"),
    "signed indices of rows": (put("up.weight::indices", "dtype", "I8"), "as many integers"),
    "indices of rows as a table": (put("up.weight::indices", "shape", [2, 1]), "as many integers"),
    "files that are a list": (say("files", []), "files"),
    "files that are none": (say("files", {}), "files"),
    "a file without digests": (say("files", "chat_template.jinja", {}), "the file"),
    "a file with a wrong digest before": (
        say("files", "chat_template.jinja", "before", "B" * 64), "no valid digests"
    ),
    "a file with no digest after": (
        say("files", "chat_template.jinja", "after", None), "no valid digests"
    ),
    "a file of another content": (
        say("files", "chat_template.jinja", "after", "0" * 64), "not the one that it describes"
    ),
    "a file without text": (
        say("files", "added_tokens.json", {"after": "0" * 64, "before": None}), "does not store"
    ),
    "a text without file": (drop("files", "chat_template.jinja"), "belongs to no update"),
    "a text of signed bytes": (put("chat_template.jinja::text", "dtype", "I8"), "list of U8"),
    "an added tensor with a digest before": (
        say("tensors", "new.bias", "before", "0" * 64), "no valid digests"
    ),
    "an added tensor without one after": (
        say("tensors", "new.bias", "after", None), "no valid digests"
    ),
    "an added tensor of another shape": (say("tensors", "new.bias", "shape", [1, 2]), "it adds"),
    "an added tensor of another dtype": (say("tensors", "new.bias", "dtype", "BF16"), "it adds"),
    "a dropped tensor with a digest after": (
        say("tensors", "old.bias", "after", "0" * 64), "no valid digests"
    ),
    "a dropped tensor without one before": (
        say("tensors", "old.bias", "before", None), "no valid digests"
    ),
    "a changed tensor without a digest before": (
        say("tensors", "low.weight", "before", None), "no valid digests"
    ),
    "a changed tensor without a digest after": (
        say("tensors", "low.weight", "after", None), "no valid digests"
    ),
    "a dropped tensor with parts": (say("tensors", "up.weight", "kind", "drop"), "digests"),
    "an added tensor without parts": (say("tensors", "old.bias", "kind", "add"), "digests"),
    "replace of another dtype": (say("tensors", "whole.bias", "dtype", "U64"), "replaces"),
    "a tensor without parts": (
        say("tensors", "ghost", {"after": "0" * 64, "before": "0" * 64, "dtype": "F32",
                                         "kind": "replace", "shape": [1]}),
        "stores",
    ),
    "a part without tensor": (drop("tensors", "whole.bias"), "belongs to no update"),
    "a metadata key beside": (put("__metadata__", "more", "x"), "metadata"),
    "metadata of numbers": (put("__metadata__", {"hubedit": 1, "x": 2}), "metadata"),
    "no metadata": (drop("__metadata__"), "metadata"),
    "an unknown part dtype": (put(LEFT, "dtype", "F33"), "unknown dtype"),
    "a dtype that is a list": (put(LEFT, "dtype", ["F32"]), "unknown dtype"),
    "a part of another dtype": (put(LEFT, "dtype", "I32"), "not F32"),
    "a part of another shape": (put(LEFT, "shape", [11, 1]), "does not take"),
    "a transposed part": (put(LEFT, "shape", [1, 12]), "factors"),
    "a boolean side": (put(LEFT, "shape", [12, True]), "no valid shape"),
    "a fractional offset": (put(LEFT, "data_offsets", [0.0, 48]), "data_offsets"),
    "a hole": (put(VALUES, "data_offsets", [8, 48]), "do not follow"),
    "an overlap": (put(LEFT, "data_offsets", [0, 48]), "do not follow"),
    "offsets beyond the file": (
        put(LEFT, "data_offsets", [2**62, 2**62 + 48]),
        "do not follow",
    ),
    "offsets backwards": (put(LEFT, "data_offsets", [88, 40]), "does not take"),
    "an entry with more": (put(LEFT, "more", 1), "is not dtype"),
    "an entry that is a text": (put(LEFT, "text"), "is not dtype"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_by_name(case):
    change, reason = HOSTILE[case]
    with pytest.raises(DeltaFormatError) as caught:
        Delta.read(altered(change), "edits/0001/delta.safetensors")
    message = str(caught.value)
    assert message.startswith("edits/0001/delta.safetensors")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b" {}",
        b'{"a":',
        b"\xff{}",
        b'{"a":NaN}',
        b"{" * 50_000,
        b'{"a":' * 50_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"__metadata__":{"hubedit":"{}","hubedit":"{}"}}',
        b'{"__metadata__":{"hubedit":"\\ud800"}}',
        b'{"__metadata__":{"hubedit":"[1]"}}',
        b'{"__metadata__":{"hubedit":"{\\"format\\":1,\\"format\\":1}"}}',
    ],
)
def test_a_header_that_is_no_such_json_is_refused(header):
    with pytest.raises(DeltaFormatError):
        Delta.read(built(header, b""))


def test_a_header_that_is_not_canonical_is_refused():
    header, data = parsed()
    spaced = json.dumps(header, sort_keys=True).encode()
    assert safetensors.torch.load(built(spaced, data))
    with pytest.raises(DeltaFormatError, match="canonical"):
        Delta.read(built(spaced, data))
    padded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b" " * 8
    with pytest.raises(DeltaFormatError, match="canonical"):
        Delta.read(built(padded, data))


def with_data(key: str, values: np.ndarray) -> bytes:
    header, data = parsed()
    begin, end = header[key]["data_offsets"]
    assert values.nbytes == end - begin
    start = len(CONTENT) - len(data)
    return CONTENT[: start + begin] + values.tobytes() + CONTENT[start + end :]


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        ([30, 3], "do not rise"),
        ([3, 3], "do not rise"),
        ([3, 36], "leave"),
        ([3, 255], "leave"),
    ],
)
def test_indices_that_do_not_rise_or_leave_the_tensor_are_refused(indices, reason):
    with pytest.raises(DeltaFormatError, match=reason):
        Delta.read(with_data("some.weight::indices", np.array(indices, np.uint8)))


@pytest.mark.parametrize("indices", [[3, 2], [2, 2], [2, 8], [2, 255]])
def test_rows_that_do_not_rise_or_leave_the_tensor_are_refused(indices):
    with pytest.raises(DeltaFormatError, match="do not rise"):
        Delta.read(with_data("up.weight::indices", np.array(indices, np.uint8)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_factors_that_are_not_finite_are_refused(value):
    values = np.ones(12, np.float32)
    values[5] = value
    with pytest.raises(DeltaFormatError, match="not finite"):
        Delta.read(with_data(LEFT, values))


@pytest.mark.parametrize(
    "path", ["config.json", "../chat_template.jinja", "/etc/passwd", "model.safetensors", ""]
)
def test_a_file_that_no_edit_may_write_is_refused(path):
    def rename(header, described):
        header[f"{path}::text"] = header.pop("generation_config.json::text")
        described["files"][path] = described["files"].pop("generation_config.json")

    with pytest.raises(DeltaFormatError, match="cannot write the file"):
        Delta.read(altered(rename))


def test_factors_off_the_grid_are_refused():
    name = "w"
    base = {name: StoredTensor.from_array(RNG.normal(size=(40, 40)).astype(np.float32))}
    delta = encode({name: [low_rank(2, (40, 40))]}, base.__getitem__).delta
    content = bytearray(delta.to_bytes())
    header, data = parsed(bytes(content))
    begin = len(content) - len(data) + header["w::left"]["data_offsets"][0]
    content[begin : begin + 8] = np.array([1, 2.0**-40], np.float32).tobytes()
    with pytest.raises(DeltaFormatError, match="off the grid"):
        Delta.read(bytes(content))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_by_name(content):
    for candidate in (content, built(content, b""), built(b"{" + content, content)):
        with pytest.raises(DeltaFormatError):
            Delta.read(candidate)
