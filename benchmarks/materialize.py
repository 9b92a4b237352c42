"""How long `materialize` and `verify` take on a large model, beside `cp -r` and `sha256sum`.

    python benchmarks/materialize.py --params 2e8
    python benchmarks/materialize.py --params 7e9 --scratch /var/tmp

Random bfloat16 weights in shards are written, edited by one matrix of rank one and by ten dense
tensors, and deleted at the end. Each command runs in a process of its own; its peak memory is what
the kernel says of that process. `--compare` also loads, changes and saves the model with
transformers, which needs memory for all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hubedit.headers import data_order, write_header

HIDDEN, INNER, SHARD = 4096, 11008, 2 << 30
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
NAME = "model.layers.{}.{}.weight"
DENSE = 10

RANK_ONE = """
import sys
from pathlib import Path
import numpy as np
from hubedit.shards import Checkpoint, materialize
from hubedit.updates import LowRank
base, target, name = sys.argv[1:]
before = Checkpoint.open(base).read(name)
rng = np.random.default_rng(1)
left, right = rng.normal(size=(before.shape[0], 1)), rng.normal(size=(1, before.shape[1]))
update = LowRank(left * 0.01, right * 0.01).rounded()[0]
materialize(base, target, {name: update.apply(before)}, link=True)
"""
DENSE_EDIT = """
import sys
import numpy as np
from hubedit.shards import Checkpoint, materialize
from hubedit.stored import StoredTensor
base, target, *names = sys.argv[1:]
stored = Checkpoint.open(base)
def moved(name):
    before = stored.read(name)
    steps = np.random.default_rng(2).integers(0, 3, before.size, dtype=np.uint16)
    return StoredTensor(before.dtype, before.shape, (before.bits() + steps).view(np.uint8))
materialize(base, target, {name: (lambda name=name: moved(name)) for name in names}, link=True)
"""
COMPARE = """
import sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
with torch.no_grad():
    model.get_parameter(sys.argv[3]).add_(torch.ones(1, dtype=torch.bfloat16))
model.save_pretrained(sys.argv[2])
"""


def write_model(directory: Path, parameters: int) -> int:
    """Write a model of random finite bfloat16 weights; returns the number of its layers."""
    layer = sum(rows * columns for rows, columns in SHAPES.values())
    layers = max(1, round(parameters / layer))
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": layers,
        "num_key_value_heads": 32,
        "tie_word_embeddings": True,
        "vocab_size": 32,
    }
    (directory / "config.json").write_text(json.dumps(config))
    rng, found, held, size = np.random.default_rng(0), {}, {}, 0
    shards: list[list[str]] = []

    def flush() -> None:
        nonlocal held, size
        if held:
            shards.append(list(held))
            save_bfloat16(held, directory / f"part-{len(shards):05d}.safetensors")
            held, size = {}, 0

    for number in range(layers):
        for part, shape in SHAPES.items():
            bits = rng.integers(0, 1 << 16, shape, dtype=np.uint16)
            held[NAME.format(number, part)] = bits & 0x80FF | 0x3C00
            size += 2 * bits.size
            if size >= min(SHARD, 2 * parameters // 3):
                flush()
        for part in ("input_layernorm", "post_attention_layernorm"):
            held[NAME.format(number, part)] = np.full(HIDDEN, 0x3F80, np.uint16)
    held["model.norm.weight"] = np.full(HIDDEN, 0x3F80, np.uint16)
    held["model.embed_tokens.weight"] = np.full((32, HIDDEN), 0x3C00, np.uint16)
    flush()
    for number, names in enumerate(shards, start=1):
        file = f"part-{number:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"part-{number:05d}.safetensors").rename(directory / file)
        found |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": found}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return layers


def save_bfloat16(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write bit patterns as bfloat16."""
    shapes = {name: ("BF16", bits.shape) for name, bits in tensors.items()}
    with path.open("wb") as file:
        file.write(write_header(shapes, {"format": "pt"}))
        for name in data_order(shapes):
            file.write(tensors[name].data)


def timed(command: list[str], **more: Any) -> dict[str, float]:
    """Seconds and peak memory (MB) of a command."""
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, **more)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} ended with {child.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - begin, "rss_mb": usage.ru_maxrss * unit / 1e6}


def part_of(name: str) -> str:
    """Which matrix of its layer a tensor is."""
    return ".".join(name.split(".")[3:5])


def hubedit(*arguments: Path | str) -> list[str]:
    """A command line of hubedit."""
    return [sys.executable, "-m", "hubedit", *map(str, arguments)]


def main() -> int:
    """Print one line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", type=float, default=2e8, help="number of parameters, about")
    parser.add_argument("--scratch", type=Path, help="directory with room for five copies")
    parser.add_argument("--repeat", type=int, default=3, help="the quickest of so many counts")
    parser.add_argument("--compare", action="store_true", help="transformers as well")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        work = Path(scratch)
        os.environ["HUBEDIT_HOME"] = str(work / "home")
        base = work / "base"
        # in a process of its own: a child's peak memory begins at its parent's
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            layers = pool.submit(write_model, base, int(given.params)).result()
        nbytes = sum(path.stat().st_size for path in base.iterdir())
        print(f"{layers} layers, {nbytes:,} bytes, {len(list(base.glob('*.safetensors')))} shards")
        one = NAME.format(layers // 2, "mlp.down_proj")
        dense = [NAME.format(k % layers, part) for k, part in enumerate([*SHAPES, *SHAPES])][:DENSE]
        dense = sorted(set(dense))
        subprocess.run([sys.executable, "-c", RANK_ONE, base, work / "m1", one], check=True)
        subprocess.run([sys.executable, "-c", DENSE_EDIT, base, work / "m2", *dense], check=True)
        for edit, model in (("rank one", "m1"), ("dense", "m2")):
            found[f"delta, {edit}"] = timed(
                hubedit("delta", base, work / model, "-o", work / f"{model}-edit"),
                stderr=subprocess.DEVNULL,
            )
            shutil.rmtree(work / model)
        runs = {
            "cp -r": ["cp", "-r", str(base), str(work / "out")],
            "sha256sum": ["sh", "-c", f"ls {base}/*.safetensors | xargs -P$(nproc) -n1 sha256sum"],
        }
        for edit, model in (("rank one", "m1"), ("dense", "m2")):
            folder = work / f"{model}-edit"
            runs[f"materialize, {edit}"] = hubedit("materialize", folder, "-o", work / "out")
            runs[f"verify, {edit}"] = hubedit("verify", folder)
            runs[f"verify --deep, {edit}"] = hubedit("verify", folder, "--deep")
        if given.compare:
            code = [sys.executable, "-c", COMPARE, str(base), str(work / "out"), one]
            runs["from_pretrained, save_pretrained"] = code
        for _ in range(given.repeat):
            for name, command in runs.items():
                figures = timed(command)
                shutil.rmtree(work / "out", ignore_errors=True)
                if name not in found or figures["seconds"] < found[name]["seconds"]:
                    found[name] = figures
        touched = sum(
            2 * rows * columns for rows, columns in (SHAPES[n] for n in map(part_of, dense))
        )
    for name, figures in found.items():
        against = "sha256sum" if "deep" in name else "cp -r"
        ratio = figures["seconds"] / found[against]["seconds"]
        print(
            f"{name:34}{figures['seconds']:>9.2f} s{figures['rss_mb']:>9.0f} MB"
            f"{ratio:>8.2f} × {against}"
        )
    print(
        f"verify --deep of the dense edit hashes the base, and {touched:,} bytes of tensors before "
        f"and after it: {(nbytes + 2 * touched) / nbytes:.2f} × the bytes that sha256sum does"
    )
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
