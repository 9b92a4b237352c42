"""Whatever bytes a delta, a manifest or a stack has: a named error, or the tensors that were meant.

`HUBEDIT_MUTATIONS` is how many of each kind are tried, `HUBEDIT_MUTATION_SEED` where they begin.
"""

import contextlib
import json
import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from delta_sample import BASE, CONTENT, ENCODED
from mutating import BOMB, DEEP, file_mutated, framed, json_mutated, with_part

from hubedit.delta import Delta
from hubedit.errors import DeltaError, DeltaFormatError, HubEditError, ManifestError
from hubedit.manifest import MAX_JSON, Manifest, Stack
from hubedit.updates import StoredTensor

COUNT = int(os.environ.get("HUBEDIT_MUTATIONS", "1500"))
SEED = int(os.environ.get("HUBEDIT_MUTATION_SEED", "0"))
GALLERY = Path(__file__).parent.parent / "model_cards" / "stack-of-two"
STACK = (GALLERY / "hubedit.json").read_bytes()
MANIFEST = next(iter(sorted(GALLERY.glob("edits/*/manifest.json")))).read_bytes()
BOUND = 1 << 24
"""Bytes that reading and applying any mutation of the sample may take at a time."""


def used(content: bytes) -> int:
    """Read a delta and use all of it; returns how many tensors it made, none of them wrong."""
    delta = Delta.read(content)
    delta.added()
    made = 0
    for name in delta:
        if name not in BASE:
            continue
        try:
            after = delta.apply(name, BASE[name])
        except DeltaError:
            continue
        assert after.sha256() == delta.targets[name].after
        if delta.targets[name].after == ENCODED.delta.targets[name].after:
            assert after == ENCODED.after[name]
        made += 1
    assert delta.to_bytes() == content
    return made


def test_no_mutation_of_a_delta_does_harm():
    refused = 0
    for number in range(COUNT):
        content = file_mutated(random.Random(f"{SEED}/{number}"), CONTENT)
        try:
            used(content)
        except HubEditError:
            refused += 1
        except BaseException as error:
            error.add_note(f"mutation {number} of seed {SEED}")
            raise
    assert refused > COUNT / 2


def test_no_mutation_of_a_delta_takes_more_memory_than_it_may():
    tracemalloc.start()
    for number in range(COUNT // 5):
        content = file_mutated(random.Random(f"{SEED}/memory/{number}"), CONTENT)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with contextlib.suppress(HubEditError):
            used(content)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < BOUND, f"mutation {number} of seed {SEED}"
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "content"), [(Manifest, MANIFEST), (Stack, STACK)], ids=["manifest", "stack"]
)
def test_no_mutation_of_a_record_does_harm(kind, content):
    assert kind.from_json(content)
    refused = 0
    for number in range(COUNT):
        mutated = json_mutated(random.Random(f"{SEED}/{kind.__name__}/{number}"), content)
        try:
            found = kind.from_json(mutated)
        except ManifestError:
            refused += 1
            continue
        except BaseException as error:
            error.add_note(f"mutation {number} of seed {SEED}")
            raise
        assert kind.from_json(found.to_json()) == found
    assert refused > COUNT / 3


@pytest.mark.parametrize("kind", [Manifest, Stack])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{",
        DEEP.encode(),
        b'{"format": 1, "format": 1}',
        b'{"format": NaN}',
        b'{"format": 2}',
        b'{"format": ' + b"9" * 5000 + b"}",
        "\ud800",
        " " * (MAX_JSON + 1),
    ],
    ids=["empty", "encoding", "deep", "twice", "nan", "newer", "digits", "surrogate", "long"],
)
def test_a_hostile_record_is_refused(kind, content):
    with pytest.raises(ManifestError):
        kind.from_json(content)


def parts() -> tuple[dict, bytes]:
    length = int.from_bytes(CONTENT[:8], "little")
    return json.loads(CONTENT[8 : 8 + length]), CONTENT[8 + length :]


@pytest.mark.parametrize(
    "key", ["moved.weight::steps", "partly.weight::steps", "partly.weight::gaps"]
)
def test_a_decompression_bomb_is_refused_by_the_size_it_declares(key):
    content = with_part(*parts(), key, BOMB)
    tracemalloc.start()
    with pytest.raises(DeltaFormatError, match="not usable"):
        Delta.read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(BOMB) + (1 << 22)


def test_a_frame_that_lies_about_its_size_makes_nothing():
    """Its header declares the size that is needed, and its blocks hold more."""
    header, data = parts()
    begin, end = header["moved.weight::steps"]["data_offsets"]
    honest = data[begin:end]
    update = Delta.read(CONTENT)["moved.weight"]
    nbytes = BASE["moved.weight"].nbytes
    declared = (
        nbytes.to_bytes(2, "little") if nbytes < 256 else (nbytes - 256).to_bytes(2, "little")
    )
    assert declared in honest[:8]
    for number in range(6, len(honest)):
        broken = bytearray(honest)
        broken[number] ^= 0x55
        frame = StoredTensor("U8", (len(broken),), np.frombuffer(bytes(broken), np.uint8))
        try:
            made = type(update)(frame).apply(BASE["moved.weight"])
        except DeltaError:
            continue
        assert made.nbytes == nbytes


def test_a_rank_bomb_is_refused_before_anything_is_multiplied():
    header, data = parts()
    described = json.loads(header["__metadata__"]["hubedit"])
    for rank in (0, 11, 2**40):
        changed = json.loads(json.dumps(header))
        changed["low.weight::left"]["shape"] = [12, rank]
        changed["low.weight::right"]["shape"] = [rank, 10]
        with pytest.raises(DeltaFormatError):
            Delta.read(framed(changed, data))
    described["tensors"]["moved.weight"]["shape"] = [2**31, 2**30]
    header["__metadata__"]["hubedit"] = json.dumps(described, sort_keys=True, separators=(",", ":"))
    with pytest.raises(DeltaFormatError):
        Delta.read(framed(header, data))
