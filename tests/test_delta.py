"""The delta file: canonical, exact, and read without trust."""

import hashlib
import io
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubedit.delta import Delta, Target, encode, low_rank_nbytes
from hubedit.errors import (
    BaseMismatchError,
    DeltaError,
    DeltaFormatError,
    EmptyDeltaError,
    NonFiniteUpdateError,
)
from hubedit.updates import LowRank, Replace, Sparse, StoredTensor, apply

RNG = np.random.default_rng(0)
BASE = {
    "low.weight": StoredTensor.from_array(torch.from_numpy(RNG.normal(size=(12, 10))).bfloat16()),
    "some.weight": StoredTensor.from_array(RNG.normal(size=(4, 9)).astype(np.float16)),
    "whole.bias": StoredTensor.from_array(np.arange(5)),
}


def low_rank(rank: int = 1, shape: tuple[int, int] = (12, 10)) -> LowRank:
    return LowRank(RNG.normal(size=(shape[0], rank)), RNG.normal(size=(rank, shape[1])))


CHANGES = {
    "low.weight": [low_rank()],
    "some.weight": [Sparse([3, 30], np.array([0.5, 7.0], np.float16))],
    "whole.bias": StoredTensor.from_array(np.arange(5)[::-1]),
}
ENCODED = encode(
    CHANGES, BASE.__getitem__, meta={"base": "a" * 64}, aliases={"low.weight": ["head", "emb"]}
)
CONTENT = ENCODED.delta.to_bytes()


def parsed(content: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


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
    header, data = parsed(CONTENT)
    described = json.loads(header["__metadata__"]["hubedit"])
    change(header, described)
    if "hubedit" in header.get("__metadata__", {}):
        header["__metadata__"]["hubedit"] = json.dumps(
            described, sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
    return built(header, data)


def test_what_was_written_is_read_and_makes_the_same_tensors():
    delta = Delta.read(CONTENT)
    assert list(delta) == sorted(CHANGES)
    assert {name: update.kind for name, update in delta.items()} == {
        "low.weight": "low_rank",
        "some.weight": "sparse",
        "whole.bias": "replace",
    }
    assert delta.aliases == {"low.weight": ("emb", "head")}
    assert delta.meta == {"base": "a" * 64}
    for name in delta:
        assert delta[name] == ENCODED.delta[name]
        assert delta.apply(name, BASE[name]) == ENCODED.after[name]
        assert apply(delta.updates[name], BASE[name]) == ENCODED.after[name]
    assert delta.to_bytes() == CONTENT


def test_path_bytes_and_file_are_read_alike(tmp_path):
    path = tmp_path / "delta.safetensors"
    assert ENCODED.delta.write(path) == hashlib.sha256(CONTENT).hexdigest()
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
    assert Delta.read(path).to_bytes() == CONTENT
    assert Delta.read(str(path)).to_bytes() == CONTENT
    assert Delta.read(io.BytesIO(CONTENT)).to_bytes() == CONTENT
    with pytest.raises(DeltaFormatError, match="cannot be read"):
        Delta.read(tmp_path / "absent")


def test_the_order_in_which_changes_are_given_does_not_matter():
    backwards = {name: CHANGES[name] for name in reversed(CHANGES)}
    again = encode(
        backwards,
        BASE.__getitem__,
        meta={"base": "a" * 64},
        aliases={"low.weight": ["emb", "head"]},
    )
    assert again.delta.to_bytes() == CONTENT


def test_the_stock_library_opens_the_file():
    opened = safetensors.torch.load(CONTENT)
    assert opened["low.weight::left"].shape == (12, 1)
    assert opened["low.weight::right"].shape == (1, 10)
    assert opened["some.weight::indices"].tolist() == [3, 30]
    assert opened["some.weight::values"].tolist() == [0.5, 7.0]
    assert opened["whole.bias::values"].tolist() == [4, 3, 2, 1, 0]


def test_data_start_at_eight_bytes_and_are_aligned():
    header, data = parsed(CONTENT)
    assert (len(CONTENT) - len(data)) % 8 == 0
    widths = {"F32": 4, "U32": 4, "F16": 2, "I64": 8}
    for key, entry in header.items():
        if key != "__metadata__":
            assert entry["data_offsets"][0] % widths[entry["dtype"]] == 0


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
    "no tensors": (say("tensors", {}), "no tensors"),
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
    header, data = parsed(CONTENT)
    spaced = json.dumps(header, sort_keys=True).encode()
    assert safetensors.torch.load(built(spaced, data))
    with pytest.raises(DeltaFormatError, match="canonical"):
        Delta.read(built(spaced, data))
    padded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b" " * 8
    with pytest.raises(DeltaFormatError, match="canonical"):
        Delta.read(built(padded, data))


def with_data(key: str, values: np.ndarray) -> bytes:
    header, data = parsed(CONTENT)
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
        ([3, 2**32 - 1], "leave"),
    ],
)
def test_indices_that_do_not_rise_or_leave_the_tensor_are_refused(indices, reason):
    with pytest.raises(DeltaFormatError, match=reason):
        Delta.read(with_data("some.weight::indices", np.array(indices, np.uint32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_factors_that_are_not_finite_are_refused(value):
    values = np.ones(12, np.float32)
    values[5] = value
    with pytest.raises(DeltaFormatError, match="not finite"):
        Delta.read(with_data(LEFT, values))


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


def test_names_of_any_text_are_kept():
    names = ["a", "a::left", "ü", "日本", 'quote"\\', "tab\t", "__metadata__", "é́\U0001f600", ""]
    base = dict.fromkeys(names, BASE["low.weight"])
    encoded = encode({name: [low_rank()] for name in names}, base.__getitem__)
    delta = Delta.read(encoded.delta.to_bytes())
    assert list(delta) == sorted(names)
    for name in names:
        assert delta.apply(name, base[name]) == encoded.after[name]


def test_names_that_are_not_unicode_are_refused():
    with pytest.raises(DeltaError, match="Unicode"):
        encode({"\ud800": [low_rank()]}, lambda _: BASE["low.weight"]).delta.to_bytes()


def test_another_base_is_refused_by_name():
    delta = ENCODED.delta
    other = apply(low_rank().rounded()[0], BASE["low.weight"])
    with pytest.raises(BaseMismatchError, match=r"low\.weight"):
        delta.apply("low.weight", other)
    with pytest.raises(BaseMismatchError, match="BF16"):
        delta.apply("low.weight", BASE["some.weight"])
    with pytest.raises(DeltaError, match="does not change"):
        delta.apply("absent", other)
    target = delta.targets["low.weight"]
    lying = Delta(
        {"low.weight": delta["low.weight"]},
        {"low.weight": Target(target.dtype, target.shape, target.before, "0" * 64)},
    )
    with pytest.raises(DeltaError, match="another tensor"):
        lying.apply("low.weight", BASE["low.weight"])


def test_a_recorded_digest_decides():
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert Delta.read_verified(CONTENT, digest, "x").to_bytes() == CONTENT
    with pytest.raises(DeltaFormatError, match="not the file that was recorded"):
        Delta.read_verified(CONTENT, "0" * 64, "x")


# -- what is chosen -----------------------------------------------------------------------------


def test_changes_describe_what_they_change():
    by_name = {change.name: change for change in ENCODED.changes}
    low = by_name["low.weight"]
    before, after = BASE["low.weight"], ENCODED.after["low.weight"]
    assert (low.kind, low.rank, low.dtype, low.shape) == ("low_rank", 1, "BF16", (12, 10))
    assert (low.sha256_before, low.sha256_after) == (before.sha256(), after.sha256())
    assert low.elements_total == 120
    assert low.elements_changed == int((before.bits() != after.bits()).sum())
    old, new = before.to_float32().astype(float), after.to_float32().astype(float)
    ratio = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert low.relative_norm == pytest.approx(ratio, rel=1e-5)
    assert low.nbytes == 4 * 22
    some = by_name["some.weight"]
    assert (some.kind, some.rank, some.elements_changed, some.nbytes) == ("sparse", None, 2, 12)
    assert [choice.kind for choice in ENCODED.choices] == ["low_rank", "sparse", "replace"]
    assert all(choice.reason for choice in ENCODED.choices)


def test_recorded_updates_of_one_tensor_are_stored_as_one():
    base = StoredTensor.from_array(RNG.normal(size=(60, 50)).astype(np.float32))
    one, two = low_rank(2, (60, 50)), low_rank(3, (60, 50))
    encoded = encode({"w": [one, two]}, lambda _: base)
    assert encoded.changes[0].rank == 5
    exact = base.to_float32() + one.left @ one.right + two.left @ two.right
    assert np.allclose(encoded.after["w"].to_float32(), exact, rtol=1e-5, atol=1e-5)


def test_factors_as_large_as_the_tensor_are_not_stored():
    encoded = encode({"low.weight": [low_rank(6)]}, BASE.__getitem__)
    (choice,) = encoded.choices
    assert choice.kind in {"sparse", "replace"}
    assert "rank 6" in choice.reason


def test_ranks_that_add_up_above_the_smaller_side_are_not_stored():
    updates = [low_rank(5), low_rank(5), low_rank(5)]
    encoded = encode({"low.weight": updates}, BASE.__getitem__)
    assert encoded.choices[0].kind == "replace"
    total = BASE["low.weight"].to_float32() + sum(u.left @ u.right for u in updates)
    expected = torch.from_numpy(total).bfloat16().float().numpy()
    assert np.allclose(encoded.after["low.weight"].to_float32(), expected, rtol=2**-7)


def test_factors_that_the_grid_would_move_are_not_stored():
    base = StoredTensor.from_array(RNG.normal(size=(80, 80)).astype(np.float32))
    left, right = np.zeros((80, 2)), np.zeros((2, 80))
    left[:, 0], left[:, 1] = 1, RNG.normal(size=80) * 2.0**-12
    right[0, :], right[1, :] = 2.0**8, RNG.normal(size=80) * 2.0**-12
    left[:, 1] *= 2.0**-12
    encoded = encode({"w": [LowRank(left, right)]}, lambda _: base)
    assert encoded.choices[0].kind != "low_rank"
    assert "grid" in encoded.choices[0].reason


def test_a_black_box_change_takes_the_smallest_exact_kind():
    base = StoredTensor.from_array(torch.randn(50, 40).bfloat16())
    for changed, kind in ((1, "sparse"), (660, "sparse"), (667, "replace"), (2000, "replace")):
        values = base.bits().copy()
        values[:changed] ^= 1
        after = StoredTensor("BF16", base.shape, values.view(np.uint8))
        encoded = encode({"w": after}, lambda _: base)
        assert encoded.choices[0].kind == kind
        assert encoded.delta.apply("w", base) == after


def test_elements_smaller_than_a_byte_are_replaced():
    base = StoredTensor("F4", (4, 4), np.zeros(8, np.uint8))
    after = StoredTensor("F4", (4, 4), np.array([0, 0, 1, 0, 0, 0, 0, 0], np.uint8))
    encoded = encode({"w": after}, lambda _: base)
    assert encoded.choices[0].kind == "replace"
    assert encoded.changes[0].relative_norm is None
    assert Delta.read(encoded.delta.to_bytes()).apply("w", base) == after


def test_values_are_rounded_to_the_dtype_of_the_tensor():
    values = np.array([1 + 2**-9, 3.0])
    encoded = encode({"low.weight": [Sparse([7, 2], values)]}, BASE.__getitem__)
    assert encoded.after["low.weight"].to_float32().reshape(-1)[[7, 2]].tolist() == [1.0, 3.0]
    whole = encode({"low.weight": [Replace(np.ones((12, 10)))]}, BASE.__getitem__)
    assert (whole.after["low.weight"].to_float32() == 1).all()
    assert whole.after["low.weight"].dtype == "BF16"


def test_updates_of_several_kinds_are_carried_out_in_their_order():
    updates = [low_rank(), Sparse([0], np.array([5.0])), LowRank(np.eye(12)[:, :1], np.eye(10)[:1])]
    encoded = encode({"low.weight": updates}, BASE.__getitem__)
    assert encoded.after["low.weight"].to_float32()[0, 0] == 6
    assert encoded.choices[0].kind in {"sparse", "replace"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"low.weight": BASE["low.weight"]},
        {"low.weight": []},
        {"low.weight": [LowRank(np.zeros((12, 1)), np.ones((1, 10)))]},
        {"low.weight": [LowRank(np.full((12, 1), 1e-9), np.full((1, 10), 1e-9))]},
        {"whole.bias": [Sparse([2], np.array([2]))]},
    ],
)
def test_a_change_of_nothing_is_an_error(changes):
    with pytest.raises(EmptyDeltaError):
        encode(changes, BASE.__getitem__)


def test_tensors_without_change_are_left_out_and_named():
    encoded = encode(
        {"low.weight": [low_rank()], "some.weight": BASE["some.weight"]},
        BASE.__getitem__,
        aliases={"some.weight": ["tied"]},
    )
    assert list(encoded.delta) == ["low.weight"]
    assert [(choice.name, choice.kind) for choice in encoded.choices] == [
        ("low.weight", "low_rank"),
        ("some.weight", "none"),
    ]
    assert encoded.delta.aliases == {}


@pytest.mark.parametrize(
    "change",
    [
        [LowRank(np.ones((3, 1)), np.ones((1, 3)))],
        [Sparse([120], np.ones(1))],
        [Sparse([0], np.ones(1, np.int64))],
        StoredTensor.from_array(np.ones((12, 10), np.float32)),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_the_tensor_named(change):
    with pytest.raises(DeltaError, match=r"^low\.weight: "):
        encode({"low.weight": change}, BASE.__getitem__)


def test_nan_is_not_encoded():
    for change in (
        [LowRank(np.full((12, 1), np.inf), np.ones((1, 10)))],
        [Sparse([0], np.array([np.nan]))],
        [LowRank(np.full((12, 1), 3e38), np.full((1, 10), 3e38))],
    ):
        with pytest.raises(NonFiniteUpdateError, match=r"^low\.weight: "):
            encode({"low.weight": change}, BASE.__getitem__)


def test_meta_with_fractions_is_refused():
    with pytest.raises(DeltaError, match="meta"):
        encode(CHANGES, BASE.__getitem__, meta={"x": 0.1})


@pytest.mark.parametrize(("shape", "rank"), [((12, 10), 1), ((300, 200), 7), ((64, 64), 30)])
def test_the_size_of_a_low_rank_delta_is_predicted_exactly(shape, rank):
    base = StoredTensor.from_array(torch.randn(shape))
    meta = {"base": "0" * 64}
    content = encode(
        {"model.layers.0.mlp.down_proj.weight": [low_rank(rank, shape)]},
        lambda _: base,
        meta=meta,
    ).delta.to_bytes()
    assert low_rank_nbytes(shape, rank, dtype="F32", meta=meta) == len(content)


@pytest.mark.parametrize("shape", [(768, 3072), (4096, 11008), (4096, 14336), (8192, 28672)])
def test_a_rank_one_edit_is_little_more_than_its_factors(shape):
    assert low_rank_nbytes(shape, 1) <= 4 * sum(shape) + 4096


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_by_name(content):
    for candidate in (content, built(content, b""), built(b"{" + content, content)):
        with pytest.raises(DeltaFormatError):
            Delta.read(candidate)
