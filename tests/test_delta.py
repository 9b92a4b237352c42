"""The delta file: canonical, exact, and read without trust."""

import hashlib
import io
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from delta_sample import BASE, CHANGES, CONTENT, ENCODED, FILES, PRESENCE, low_rank, parsed

from hubedit.delta import Delta, Target, TextFile, encode, low_rank_nbytes
from hubedit.errors import (
    BaseMismatchError,
    DeltaError,
    DeltaFormatError,
    EmptyDeltaError,
    NonFiniteUpdateError,
)
from hubedit.updates import Add, Drop, StoredTensor, apply


def test_what_was_written_is_read_and_makes_the_same_tensors():
    delta = Delta.read(CONTENT)
    assert list(delta) == sorted({**CHANGES, **PRESENCE})
    assert {name: update.kind for name, update in delta.items()} == {
        "down.weight": "columns",
        "low.weight": "low_rank",
        "merged.weight": "low_rank_packed",
        "moved.weight": "packed",
        "new.bias": "add",
        "old.bias": "drop",
        "partly.weight": "sparse_packed",
        "some.weight": "sparse",
        "up.weight": "rows",
        "whole.bias": "replace",
    }
    assert delta.aliases == {"low.weight": ("emb", "head")}
    assert delta.meta == {"base": "a" * 64}
    assert {name: delta[name] for name in delta} == dict(ENCODED.delta)
    for name in CHANGES:
        assert delta.apply(name, BASE[name]) == ENCODED.after[name]
        assert apply(delta.updates[name], BASE[name]) == ENCODED.after[name]
    assert delta.to_bytes() == CONTENT


def test_path_bytes_and_file_are_read_alike(tmp_path):
    path = tmp_path / "delta.safetensors"
    assert ENCODED.delta.write(path) == hashlib.sha256(CONTENT).hexdigest()
    assert path.read_bytes() == CONTENT
    assert [found for found in tmp_path.iterdir() if found.is_file()] == [path]
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
        files=FILES[::-1],
        presence=dict(reversed(PRESENCE.items())),
    )
    assert again.delta.to_bytes() == CONTENT


def test_the_stock_library_opens_the_file():
    opened = safetensors.torch.load(CONTENT)
    assert opened["low.weight::left"].shape == (12, 1)
    assert opened["low.weight::right"].shape == (1, 10)
    assert opened["some.weight::indices"].tolist() == [3, 30]
    assert opened["some.weight::values"].tolist() == [0.5, 7.0]
    assert opened["up.weight::indices"].tolist() == [2, 3]
    assert opened["up.weight::values"].shape == (2, 6)
    assert opened["down.weight::values"].shape == (6, 2)
    assert opened["whole.bias::values"].tolist() == [9, 8, 7, 6, 5]


def test_data_start_at_eight_bytes_and_are_aligned():
    header, data = parsed()
    assert (len(CONTENT) - len(data)) % 8 == 0
    widths = {"U8": 1, "U16": 2, "F32": 4, "U32": 4, "F16": 2, "I64": 8}
    for key, entry in header.items():
        if key != "__metadata__":
            assert entry["data_offsets"][0] % widths[entry["dtype"]] == 0


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


def test_tensors_that_come_and_go_are_read_as_they_were_written():
    delta = Delta.read(CONTENT)
    added, (_, there) = PRESENCE["new.bias"][0], PRESENCE["old.bias"]
    assert delta.added() == {"new.bias": added.values}
    assert delta.dropped() == {"old.bias": there.sha256()}
    assert [
        (change.sha256_before, change.sha256_after, change.elements_changed, change.nbytes)
        for change in ENCODED.changes
        if change.name in PRESENCE
    ] == [(None, added.values.sha256(), 2, 4), (there.sha256(), None, 3, 0)]
    assert not {*PRESENCE} & {*ENCODED.after}
    for name in PRESENCE:
        with pytest.raises(DeltaError, match="comes or goes"):
            delta.apply(name, there)


@pytest.mark.parametrize(
    ("name", "move", "reason"),
    [
        ("low.weight", (Add(np.ones(2)), BASE["low.weight"]), "already has"),
        ("absent", (Drop(), None), "no tensor"),
        ("low.weight", (Drop(), BASE["low.weight"]), "not both"),
    ],
)
def test_a_tensor_comes_where_none_is_and_goes_where_one_is(name, move, reason):
    changes = CHANGES if "both" in reason else {}
    with pytest.raises(DeltaError, match=rf"^{name}: .*{reason}"):
        encode(changes, BASE.__getitem__, presence={name: move})


def test_a_tensor_with_nan_is_not_added():
    with pytest.raises(NonFiniteUpdateError):
        Add(np.array([np.nan]))


def test_files_are_read_as_they_were_written():
    delta = Delta.read(CONTENT)
    assert delta.files == {file.path: file for file in FILES}
    assert list(delta.files) == ["chat_template.jinja", "generation_config.json"]
    assert delta.text("generation_config.json", None) == FILES[0].content
    assert delta.text("chat_template.jinja", "b" * 64) == FILES[1].content
    for path, before in (("generation_config.json", "b" * 64), ("chat_template.jinja", None)):
        with pytest.raises(BaseMismatchError, match=path):
            delta.text(path, before)
    with pytest.raises(DeltaError, match="does not write"):
        delta.text("added_tokens.json", None)


def test_a_delta_may_write_files_alone():
    encoded = encode({}, BASE.__getitem__, files=FILES)
    delta = Delta.read(encoded.delta.to_bytes())
    assert (list(delta), delta.files) == ([], {file.path: file for file in FILES})
    assert delta.to_bytes() == encoded.delta.to_bytes()


def test_a_delta_without_files_does_not_speak_of_them():
    plain = encode(CHANGES, BASE.__getitem__).delta.to_bytes()
    assert "files" not in json.loads(parsed(plain)[0]["__metadata__"]["hubedit"])


def test_files_that_are_as_before_are_left_out():
    same = [TextFile(file.path, file.after, file.content) for file in FILES]
    assert encode(CHANGES, BASE.__getitem__, files=[same[0], FILES[1]]).delta.files.keys() == {
        "chat_template.jinja"
    }
    with pytest.raises(EmptyDeltaError):
        encode({}, BASE.__getitem__, files=same)


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("config.json", b"{}", "cannot write the file"),
        ("tokenizer.json", b"{}", "did you mean"),
        ("model.safetensors", b"x", "cannot write"),
        ("../chat_template.jinja", b"x", "cannot write"),
        ("folder/chat_template.jinja", b"x", "cannot write"),
        ("README.md", b"x", "cannot write"),
        ("modeling.py", b"x", "cannot write"),
        ("chat_template.jinja", b"x" * ((1 << 20) + 1), "1048577 bytes"),
        ("chat_template.jinja", b"\xff", "UTF-8"),
        ("chat_template.jinja", b"a\0b", "zero byte"),
        ("generation_config.json", b"{", "not JSON"),
        ("generation_config.json", b"[]", "not a JSON object"),
        ("generation_config.json", b'{"a":1,"a":2}', "twice"),
        ("generation_config.json", b'{"a":NaN}', "NaN"),
        ("tokenizer_config.json", b'{"auto_map":{}}', "auto_map"),
    ],
)
def test_a_file_that_no_edit_may_write_is_refused(path, content, reason):
    with pytest.raises(DeltaError, match=reason):
        TextFile(path, None, content)


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
