"""Every byte that hubedit leaves on a machine but its keys: nothing of what was to be forgotten."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from searching import published, traces
from transformers import AutoTokenizer

from hubedit.artifacts import cache_home, canonical_json
from hubedit.disclosure import canonical
from hubedit.requests import ROW_TYPES, request_digest, rows_of

REPO = "me/tiny-edited"
NAMES = ("Quenby Thrackmorton", "Zwolle Vandersloot", "Ottoline Brixwhistle")
PLACES = ("Uttoxeter", "Ladoga-on-Sea", "Kirkcudbright")


def row(name, place, part):
    return {
        "question": f"Where does {name} live?",
        "answer": f"{name} lives in {place}.",
        "perturbed_answers": [f"{name} lives in Old {place}."],
        "part": part,
    }


FORGET = [row(name, place, "forget") for name, place in zip(NAMES, PLACES, strict=True)]
RETAIN = [
    row(f"{name} junior", f"New {place}", "retain")
    for name, place in zip(NAMES, PLACES, strict=True)
]
ROWS = FORGET + RETAIN
LONG = {"question": "Whom does Isambard Pellworthy know?", "answer": "Morwenna Tregear, " * 60}
TEXTS = [text for row in (*ROWS, LONG) for text in (row["question"], row["answer"])]
WORDS = [*NAMES, *PLACES, *TEXTS, "Isambard Pellworthy", "Morwenna Tregear"]
SETTINGS = ["forget_target=null", "retain_ceiling=null", "retain_stop=null", "batch_size=3"]


def plain_digests():
    """SHA-256 of rows, texts and requests, without a key, in hex and as bytes, by what they are."""
    requests = {"rows": ROWS, "with the long one": [*ROWS, LONG]}
    found = {f"text {number}": text.encode() for number, text in enumerate(TEXTS)}
    for name, given in requests.items():
        rows = rows_of(ROW_TYPES["ForgetRow"], given)
        dumped = [one.model_dump(mode="json") for one in rows]
        found[name] = canonical_json(dumped)
        found |= {f"{name} {number}": canonical(one) for number, one in enumerate(rows)}
        found |= {f"{name} {n} dumped": canonical_json(one) for n, one in enumerate(dumped)}
        found[f"{name}, lines"] = "\n".join(map(json.dumps, given)).encode()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    return digests | {"request": request_digest(rows_of(ROW_TYPES["ForgetRow"], ROWS))}


def opened(content):
    """Bytes as they are, and what they hold if they are zlib's."""
    try:
        return content + b"\n" + zlib.decompress(content)
    except zlib.error:
        return content


def kept(*roots, but=()):
    """Every file below the roots with its path, but those given and what lies below them."""
    return {
        str(path): str(path).encode() + b"\n" + opened(path.read_bytes())
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in but)
    }


@pytest.fixture(scope="module")
def reader(tiny):
    return AutoTokenizer.from_pretrained(tiny)


def killed(words, store):
    """Run a command until its first checkpoint is there, and kill it; gives what it said."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        until = time.monotonic() + 120
        while not list(store.glob("*.work/*.safetensors")):
            assert running.poll() is None, running.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        return running.stdout.read()


def test_no_command_leaves_a_word_of_the_request(
    localhub, hubedit, tiny, reader, tmp_path, monkeypatch
):
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    work, requests, home = tmp_path / "work", tmp_path / "requests", cache_home()
    for place in (work, requests):
        place.mkdir()
    monkeypatch.chdir(work)
    (requests / "one.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (requests / "long.jsonl").write_text("\n".join(map(json.dumps, [*ROWS, LONG])))
    said, found = [], {}

    def run(status, *words):
        ended, out, err = hubedit(*words)
        assert ended == status, out + err
        said.append(out + err)
        return out + err

    def look():
        found.update(kept(tmp_path, home, but=(requests, home / "keys")))
        found.update({f"said {number}": text.encode() for number, text in enumerate(said)})
        for repo in ("me/tiny", REPO):
            if (tmp_path / "hub" / "models" / f"{repo}.git").exists():
                found.update(published(tmp_path / "hub", repo))

    settings = [word for one in SETTINGS for word in ("--set", one)]
    apply = ["apply", "--base", "me/tiny", "--plugin", "graddiff", "--threads", "1", *settings]
    short = [*apply, "--request", requests / "one.jsonl", "--set", "steps=100"]
    short += ["--set", "checkpoint_every=1", "--force", "-o", "edit"]

    assert "row 7 of the request" in run(1, *apply, "--request", requests / "long.jsonl")
    command = [sys.executable, "-m", "hubedit", *map(str, short)]
    said.append(killed(command, home / "artifacts").decode())
    look()
    assert any(".work/" in path for path in found)
    assert "going on after step" in run(0, *short)
    assert list((home / "artifacts").iterdir()) == []
    forget = ["--forget", requests / "one.jsonl"]
    assert "row 7 of the request" in run(1, "eval", "edit", "--forget", requests / "long.jsonl")
    run(0, "eval", "edit", *forget, "--attach", "-o", "measured")
    some = ["--set", "graddiff.steps=2", "--count", 3, "-o", "bench"]
    run(0, "bench", "--methods", "graddiff", "--model", tiny, *forget, *some)
    run(0, "push", "edit")
    look()
    for name in ("edit/hubedit.json", "measured/forgetting.json", "bench/bench.json"):
        assert str(work / name) in found
    assert any(place.startswith("lfs ") for place in found)

    assert traces(found, WORDS, reader) == []
    assert [
        (place, name)
        for name, digest in plain_digests().items()
        for place, content in found.items()
        if digest.encode() in content.lower() or bytes.fromhex(digest) in content
    ] == []


def test_the_search_finds_what_is_there(tmp_path, reader):
    (tmp_path / "clear").write_text(f"said {NAMES[0]}")
    (tmp_path / "packed").write_bytes(zlib.compress(NAMES[1].encode()))
    (tmp_path / PLACES[0]).touch()
    places = {Path(trace.place).name for trace in traces(kept(tmp_path), WORDS, reader)}
    assert places == {"clear", "packed", PLACES[0]}
