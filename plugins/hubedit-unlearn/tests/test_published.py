"""Ten people forgotten by a pull request on a Hub, and what the Hub then holds of them."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from types import SimpleNamespace

import hubedit_demo
import pytest
import torch
from hubedit_demo.recalling import recall
from searching import published, traces
from transformers import AutoModelForCausalLM

import hubedit as house
from hubedit import editions
from hubedit.artifacts import cache_home
from hubedit.hub import Hub

WORLD = hubedit_demo.World(1)
FORGOTTEN = WORLD.people[60:70]
OTHERS = [person for person in WORLD.people if person not in FORGOTTEN]
REPO = "me/facts-gpt2-edited"
DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}


def words(rows):
    """What must not be found: full and last names of the forgotten, and what is told of them."""
    last = [name.split()[-1] for name in FORGOTTEN]
    told = [row["text"] for row in rows if row.get("part", "forget") == "forget"]
    asked = [row["prompt"] for row in rows if row.get("part", "forget") == "forget"]
    return [*FORGOTTEN, *(name for name in last if len(name) > 4), *told, *asked]


def said_by(api):
    """Titles, texts and events of all discussions, as the client sees them."""
    found = {}
    for item in api.get_repo_discussions(REPO):
        details = api.get_discussion_details(REPO, item.num)
        events = [json.dumps(vars(event), default=str) for event in details.events]
        shown = [details.title, str(details.diff), *events]
        found[f"discussion {item.num}"] = "\n".join(shown).encode()
    return found


def digests(model, names):
    """SHA-256 of loaded tensors by their names in the file, as docs/delta-format.md defines it."""
    found = {}
    for name, tensor in model.state_dict().items():
        stored = next((one for one in names if f".{name}".endswith(f".{one}")), None)
        if stored is not None:
            shape = ",".join(map(str, tensor.shape))
            content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
            found[stored] = hashlib.sha256(f"{DTYPES[tensor.dtype]}:{shape}:".encode() + content)
    return {name: digest.hexdigest() for name, digest in found.items()}


def test_forgetting_ten_people_is_a_verified_revision_that_names_none_of_them(
    localhub, hubedit, forgetting, tmp_path, monkeypatch
):
    api = localhub.api()
    api.create_repo("me/facts-gpt2", private=True)
    api.upload_folder(repo_id="me/facts-gpt2", folder_path=hubedit_demo.model_path())
    rows = forgetting.request(WORLD, FORGOTTEN, OTHERS)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    work = tmp_path / "work"
    work.mkdir()
    (work / "forget.jsonl").write_text(lines)
    monkeypatch.chdir(work)

    recipe = ["--base", "me/facts-gpt2", "--request", "forget.jsonl", "--threads", "1"]
    status, out, err = hubedit("apply", "--plugin", "npo", *recipe, "--push")
    assert status == 0, err
    assert f"{REPO}/discussions/1" in out
    (key,) = (cache_home() / "keys").glob("*.key")
    shown = ["--request", "forget.jsonl", "--key", key, "--comment"]
    status, out, err = hubedit("review", REPO, "--pr", "1", *shown)
    assert status == 0, out + err
    assert hubedit("merge", REPO, "1")[0] == 0
    assert [tag.name for tag in api.list_repo_refs(REPO).tags] == ["v1"]
    assert hubedit("verify", f"{REPO}@v1", "--deep")[0] == 0

    model, tokenizer = house.load(REPO, revision="v1")
    edition = editions.edits_of(f"{REPO}@v1", Hub)
    assert edition.stack.edits[0].method == "npo"
    recorded = {one.name: one.after for one in edition.manifests[0].tensors}
    assert digests(model, recorded) == recorded
    assert recall(model, tokenizer, forgetting.asked(WORLD, FORGOTTEN)) < 0.2
    assert recall(model, tokenizer, forgetting.asked(WORLD, OTHERS)) >= 0.95

    kept = published(tmp_path / "hub", REPO) | said_by(api)
    assert any(place.startswith("lfs ") for place in kept)
    assert any(b"are the undisclosed request" in content for content in kept.values())
    assert any(b'"ForgetText"' in content for content in kept.values())
    assert traces(kept, words(rows), tokenizer) == []
    finished = {str(path): path.read_bytes() for path in work.rglob("edits/**/*") if path.is_file()}
    assert finished
    assert traces(finished, words(rows), tokenizer) == []

    assert hubedit("revert", REPO)[0] == 0
    assert hubedit("merge", REPO, "2")[0] == 0
    back, _ = house.load(REPO, revision="v2")
    base = AutoModelForCausalLM.from_pretrained(hubedit_demo.model_path())
    names = list(base.state_dict())
    assert digests(back, names) == digests(base, names) != digests(model, names)


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize(
    "form", ["clear", "upper", "hex", "HEX", "base64", "json", "pretty", "<i4", "<i8"]
)
def test_a_name_is_found_in_every_form_and_at_every_place(form, shift):
    spoken = SimpleNamespace(ids={"Ana Brook": [17, 402], " Ana Brook": [391, 402]})

    def tokenizer(text, add_special_tokens):
        return {"input_ids": spoken.ids[text]}

    name = "Ana Brook"
    ids = spoken.ids[f" {name}"]
    hidden = {
        "clear": name.encode(),
        "upper": name.upper().encode(),
        "hex": name.encode().hex().encode(),
        "HEX": name.encode().hex().upper().encode(),
        "base64": base64.b64encode(b"!" * shift + name.encode() + b"?" * 4),
        "json": json.dumps([1, *ids, 2]).encode(),
        "pretty": json.dumps([*ids], indent=2).encode(),
        "<i4": struct.pack("<4i", 1, *ids, 2),
        "<i8": struct.pack("<4q", 1, *ids, 2),
    }[form]
    filler = b"." * shift
    kept = {"clean": b"1391, 4020 and Ana met Brook", "told": filler + hidden + filler}
    found = traces(kept, [name], tokenizer)
    assert {trace.place for trace in found} == {"told"}
