"""The page docs/delta-format.md is enough to rebuild the same bytes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from delta_sample import CONTENT, FILES
from numpy_decoder import decode, decode_files

from hubedit.delta import Delta, encode
from hubedit.stored import byte_count
from hubedit.updates import KINDS, Add, Columns, Drop, LowRank, Rows, Sparse, StoredTensor, apply

TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
PAGE = Path(__file__).parent.parent / "docs" / "delta-format.md"


def base_and_changes(seed: int):
    rng = np.random.default_rng(seed)
    base, changes = {}, {}
    for dtype, as_torch in TORCH.items():
        for rank, shape in ((1, (40, 30)), (5, (33, 47)), (40, (150, 120))):
            name = f"{dtype}.{rank}"
            scale = 10.0 ** rng.integers(-9, 1)
            plain = torch.from_numpy(rng.normal(0, scale, shape)).to(as_torch)
            plain[0, :3] = torch.tensor([-0.0, 0.0, 1e-45])
            base[name] = StoredTensor.from_array(plain)
            left = rng.normal(size=(shape[0], rank))
            left[rng.random(shape[0]) < 0.3] = 0
            changes[name] = [LowRank(left, rng.normal(size=(rank, shape[1])) * scale * 1e-2)]
    for name, array in {
        "bool": rng.random((5, 5)) < 0.5,
        "double": rng.normal(size=300),
        "half": rng.normal(size=(9, 9)).astype(np.float16),
        "int": rng.integers(-9, 9, (20, 20)),
    }.items():
        base[name] = StoredTensor.from_array(array)
        places = rng.choice(array.size, 3, replace=False)
        if array.dtype == bool:
            changes[name] = StoredTensor.from_array(~array)
        else:
            changes[name] = [Sparse(places, (array.reshape(-1)[places] + 1).astype(array.dtype))]
    for dtype in ("BOOL", "F4", "F8_E4M3", "U16", "F16", "BF16", "F32", "F64", "C64"):
        for share in (0.1, 0.9):
            shape = (29, 24)
            base[f"{dtype}.{share}"] = before = random_bits(rng, dtype, shape)
            moved = before.units() + (rng.random(before.units().size) < share).astype("u1")
            changes[f"{dtype}.{share}"] = StoredTensor(dtype, shape, moved.view(np.uint8))
    base["merged"] = StoredTensor.from_array(rng.normal(size=(64, 48)).astype(np.float16))
    merged = LowRank(rng.normal(size=(64, 2)), rng.normal(size=(2, 48))).rounded()[0]
    product = apply(merged, base["merged"]).bits().copy()
    product[::50] += 1
    changes["merged"] = StoredTensor("F16", base["merged"].shape, product.view(np.uint8))
    for dtype, as_torch in TORCH.items():
        plain = torch.from_numpy(rng.normal(size=(12, 3, 15))).to(as_torch)
        for name, update, count, shape in (
            (f"{dtype}.rows", Rows, 4, (4, 3, 15)),
            (f"{dtype}.columns", Columns, 5, (12, 3, 5)),
        ):
            base[name] = StoredTensor.from_array(plain)
            places = rng.choice(12, count, replace=False)
            changes[name] = [update(places, torch.from_numpy(rng.normal(size=shape)).to(as_torch))]
    return base, changes


def random_bits(rng: np.random.Generator, dtype: str, shape: tuple[int, int]) -> StoredTensor:
    """Any bits of which none is NaN or infinite, nor becomes so by one step."""
    data = rng.integers(0, 0x70, byte_count(dtype, shape), dtype=np.uint8)
    return StoredTensor(dtype, shape, data)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_reader_written_from_the_page_rebuilds_the_same_bytes(seed):
    base, changes = base_and_changes(seed)
    presence = {"new": (Add(np.ones(3)), None), "old": (Drop(), base["int"])}
    encoded = encode(changes, base.__getitem__, presence=presence)
    kinds = {update.kind for update in encoded.delta.updates.values()}
    assert kinds == {*KINDS}
    found = decode(
        encoded.delta.to_bytes(), {name: tensor.data.tobytes() for name, tensor in base.items()}
    )
    assert found == {
        "new": np.ones(3).tobytes(),
        "old": None,
        **{name: tensor.data.tobytes() for name, tensor in encoded.after.items()},
    }


def test_a_reader_written_from_the_page_finds_the_files():
    assert decode_files(CONTENT) == {file.path: file.content for file in FILES}
    assert decode_files(encode({}, {}.__getitem__, files=FILES).delta.to_bytes()) == {
        file.path: file.content for file in FILES
    }


def test_the_page_shows_a_description_as_it_is_written():
    shown = re.search(r"```json\n(.*)\n```", PAGE.read_text(encoding="utf-8")).group(1)
    described = json.loads(shown)
    assert json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == shown
    base = {"w": StoredTensor.from_array(torch.randn(4, 5))}
    delta = encode({"w": [LowRank(np.ones((4, 1)), np.ones((1, 5)))]}, base.__getitem__).delta
    content = delta.to_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    written = json.loads(header["__metadata__"]["hubedit"])
    assert set(written) == set(described)
    (target,), (shown_target,) = written["tensors"].values(), described["tensors"].values()
    assert set(target) == set(shown_target)


def test_the_page_names_every_kind():
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"^### `(\w+)`$", text, re.MULTILINE)) == {*KINDS, "file"}
    for kind in KINDS:
        assert f"### `{kind}`" in text


def test_an_independent_reader_sees_what_hubedit_reads():
    base, changes = base_and_changes(3)
    content = encode(changes, base.__getitem__).delta.to_bytes()
    delta = Delta.read(content)
    raw = {name: tensor.data.tobytes() for name, tensor in base.items()}
    found = decode(content, raw)
    for name in delta:
        assert delta.apply(name, base[name]).data.tobytes() == found[name]
