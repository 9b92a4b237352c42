"""What a review of a small edit of a large model reads, and the memory it takes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_planning import llama  # noqa: F401

from hubedit.choosing import compare
from hubedit.delta import encode
from hubedit.diff import render_diff
from hubedit.editions import open_edition
from hubedit.hub import Hub
from hubedit.manifest import (
    DeltaRecord,
    Manifest,
    RequestRecord,
    TensorRecord,
    result_digest,
    touched_tensors,
)
from hubedit.places import checkpoint
from hubedit.plugins import load_plugins
from hubedit.revisions import add_edit
from hubedit.updates import LowRank

GALLERY = Path(__file__).parent.parent / "model_cards"
INTERPRETER = 150_000_000
"""What Python, NumPy and the client take without a model."""
NAME = "model.layers.5.mlp.down_proj.weight"


def rank_one(repo, directory):
    """An edit of one matrix by a product of two vectors, made without loading a model."""
    start = open_edition(repo, Hub)
    stored = checkpoint(start.base)
    random = np.random.default_rng(0)
    rows, columns = stored.tensors[NAME].shape
    factors = random.normal(size=(rows, 1)), random.normal(size=(1, columns)) / 100
    update = LowRank(*(factor.astype(np.float32) for factor in factors))
    base = start.stack.base
    made = encode(
        {NAME: [update]},
        stored.read,
        meta={"base": base.digest, "parent": start.stack.result},
        aliases={NAME: ()},
    )
    change = compare(NAME, stored.read(NAME), made.after[NAME], made.delta[NAME])
    fields = vars(change) | {"before": change.sha256_before, "after": change.sha256_after}
    fields = {key: value for key, value in fields.items() if not key.startswith("sha256")}
    content = made.delta.to_bytes()
    example = json.loads(next(GALLERY.glob("one-fact/edits/*/manifest.json")).read_text())
    digest = made.delta.write(directory.with_suffix(".delta"))
    manifest = Manifest.model_validate(
        example
        | {
            "edit": f"0001-rome-{digest[:8]}",
            "base": base.model_dump(),
            "parent": start.stack.result,
            "tensors": [
                TensorRecord(**fields, reason="rank 1", layer=5, module="mlp").model_dump()
            ],
            "delta": DeltaRecord(nbytes=len(content), sha256=digest).model_dump(),
            "plugin": load_plugins().method("rome")[1].record().model_dump(),
            "request": RequestRecord(type="FactEdit", count=1, sha256="0" * 64).model_dump(),
            "scores": [],
            "transcripts": [],
        }
    )
    result = result_digest(base.files, touched_tensors([manifest]))
    manifest = manifest.model_copy(update={"result": result})
    page = render_diff(manifest, [], layers=base.layers)
    files = {"delta.safetensors": content, "probes.jsonl": b"", "DIFF.md": page.encode()}
    directory.mkdir()
    add_edit(directory, start, manifest, files, weights=False)


PEAK = """
import pathlib, re, resource, sys
from hubedit.cli import run
status = run(sys.argv[1:])
known = pathlib.Path("/proc/self/status")
if known.exists():  # a child's getrusage begins with the size of its parent
    peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", known.read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
sys.stderr.write(str(peak))
sys.exit(status)
"""


def peak_and_said(*arguments):
    """Largest resident size in bytes of one run of the command line, and what it printed."""
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stderr), done.stdout


@pytest.mark.usefixtures("llama")
def test_a_review_on_13_gigabytes_reads_the_touched_tensor_and_holds_no_more(
    localhub, hubedit, tmp_path
):
    rank_one("me/llama", tmp_path / "edit")
    status, _, err = hubedit("push", tmp_path / "edit", "--to", "me/llama-edited")
    assert status == 0, err
    whole = sum(file.size for file in Hub().files("me/llama", Hub().commit("me/llama")).values())
    assert whole > 13e9
    tensor = 2 * 4096 * 11008
    before = localhub.bytes_sent
    peak, said = peak_and_said("review", "me/llama-edited", "--pr", 1, "--no-probes", "--json")
    sent = localhub.bytes_sent - before
    found = json.loads(said)
    assert found["verdict"] == "verified"
    assert any("1 changed tensors rebuilt" in item for item in found["checked"])
    assert tensor < sent < 0.01 * whole
    assert peak < INTERPRETER + 2.5 * tensor
    before = localhub.bytes_sent
    status, out, err = hubedit("diff", "me/llama", "me/llama-edited@refs/pr/1", "--json")
    assert status == 0, err
    assert [found["name"] for found in json.loads(out)["tensors"]] == [NAME]
    assert localhub.bytes_sent - before < 0.01 * whole
