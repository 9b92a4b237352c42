"""How many bytes a change of weights takes as a delta, beside other ways to ship it.

    python benchmarks/delta_size.py
    python benchmarks/delta_size.py --steps 50 --json sizes.json

The changes are trained on the spot: the demo's fact model, all weights in bfloat16 and float32 at
two learning rates, an adapter merged, 1 % of the weights alone, one ROME edit. Every delta is read
back from its bytes and applied; `wrong` counts the weights that are then not the trained ones, bit
for bit. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hubedit_demo
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from hubedit.delta import Delta, encode
from hubedit.shards import Checkpoint
from hubedit.updates import Replace, StoredTensor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 19
"""Of the others' compression; hubedit's own is quicker."""

EXTRACTED_RANK = 16
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Size:
    """Bytes of a way to ship a change, and how many weights come out wrong."""

    nbytes: int
    wrong: int = 0
    header: int | None = None


def batches(tokenizer: Any, steps: int, size: int = 16) -> Iterator[torch.Tensor]:
    """Token ids [16, 64] of the demo's corpus, in an order fixed by a seed."""
    text = (hubedit_demo.model_path() / "corpus.txt").read_text(encoding="utf-8")
    ids = torch.tensor(tokenizer(text)["input_ids"])
    rows = ids[: ids.numel() // 64 * 64].reshape(-1, 64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield rows[torch.randint(rows.shape[0], (size,), generator=generator)]


def train(model: Any, rate: float, steps: int) -> None:
    """A plain fine-tuning in float32: AdamW, no schedule, no decay."""
    tokenizer = AutoTokenizer.from_pretrained(hubedit_demo.model_path())
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=rate, weight_decay=0.0)
    model.train()
    for batch in batches(tokenizer, steps):
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.eval()


def loaded(base: Path) -> Any:
    """The model of a directory in float32."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def whole(rate: float) -> Callable[[Path, Path, str, int], None]:
    """All weights are trained."""

    def make(base: Path, target: Path, dtype: str, steps: int) -> None:
        model = loaded(base)
        train(model, rate, steps)
        model.to(DTYPES[dtype]).save_pretrained(target)

    return make


def adapter(base: Path, target: Path, dtype: str, steps: int) -> None:
    """A LoRA of rank 4 on every projection is trained, and merged in the stored dtype."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        loaded(base),
        LoraConfig(
            r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
        ),
    )
    train(model, 1e-3, steps)
    model.to(DTYPES[dtype]).merge_and_unload().save_pretrained(target)


def masked(base: Path, target: Path, dtype: str, steps: int) -> None:
    """All weights are trained, and a random hundredth of them kept."""
    model, before = loaded(base), loaded(base).state_dict()
    train(model, 1e-3, steps)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            kept = torch.rand(weight.shape, generator=generator) < 0.01
            weight.copy_(torch.where(kept, weight, before[name]))
    model.to(DTYPES[dtype]).save_pretrained(target)


def rome(base: Path, target: Path, dtype: str, steps: int) -> None:
    """One fact is edited by the ROME plugin with its defaults."""
    case = hubedit_demo.cases("test")[0]
    with tempfile.TemporaryDirectory() as scratch:
        edit = f"{scratch}/edit"
        asked = [
            "--prompt",
            case["prompt"],
            "--subject",
            case["subject"],
            "--target",
            case["target"],
        ]
        corpus = ["--corpus", str(hubedit_demo.model_path() / "corpus.txt")]
        told = ["--base", str(base), "--plugin", "rome", "-o", edit, *asked, *corpus]
        for command in (["apply", *told], ["materialize", edit, "-o", str(target)]):
            subprocess.run(
                [sys.executable, "-m", "hubedit", *command], check=True, stdout=subprocess.DEVNULL
            )


RUNS: tuple[tuple[str, str, Callable[[Path, Path, str, int], None]], ...] = (
    ("all weights, 1e-5", "bf16", whole(1e-5)),
    ("all weights, 1e-3", "bf16", whole(1e-3)),
    ("all weights, 1e-5", "fp32", whole(1e-5)),
    ("all weights, 1e-3", "fp32", whole(1e-3)),
    ("LoRA merged", "bf16", adapter),
    ("LoRA merged", "fp32", adapter),
    ("1 % of weights", "bf16", masked),
    ("ROME", "bf16", rome),
)


def tensors(directory: Path) -> Tensors:
    """Every stored tensor of a model."""
    stored = Checkpoint.open(directory)
    return {name: stored.read(name) for name in stored.tensors}


def wrong(found: StoredTensor, wanted: StoredTensor) -> int:
    """Elements whose bits differ."""
    return int(np.count_nonzero(found.bits() != wanted.bits()))


def as_torch(tensor: StoredTensor) -> torch.Tensor:
    """The values in float64."""
    return torch.from_numpy(tensor.to_float32().astype(np.float64))


def rounded(values: torch.Tensor, like: StoredTensor) -> StoredTensor:
    """Values in the dtype of another tensor."""
    return StoredTensor.from_array(values.float()).rounded_to(like.dtype)


def ours(before: Tensors, after: Tensors, kinds: dict[str, int]) -> Size:
    """The delta that hubedit writes, read back and applied."""
    changes = {name: after[name] for name in before if before[name] != after[name]}
    content = encode(changes, before.__getitem__).delta.to_bytes()
    delta = Delta.read(content)
    for update in delta.values():
        kinds[update.kind] = kinds.get(update.kind, 0) + 1
    missed = sum(wrong(delta.apply(name, before[name]), after[name]) for name in delta)
    missed += sum(after[name].size for name in changes if name not in delta)
    return Size(len(content), missed, header_nbytes(content))


def replaced(before: Tensors, after: Tensors) -> Size:
    """Every changed tensor whole."""
    return Size(sum(Replace(after[n]).nbytes(0) for n in before if before[n] != after[n]))


def subtracted(before: Tensors, after: Tensors) -> Size:
    """new − old of every changed tensor in bfloat16, and added again."""
    nbytes = missed = 0
    for name in before:
        if before[name] == after[name]:
            continue
        old = as_torch(before[name])
        difference = (as_torch(after[name]) - old).bfloat16()
        nbytes += 2 * difference.numel()
        missed += wrong(rounded(old + difference.double(), before[name]), after[name])
    return Size(nbytes, missed)


def compressed(before: Tensors, after: Tensors) -> Size:
    """The tensors of the new file through zstd."""
    return Size(len(zstd.compress(b"".join(t.data.tobytes() for t in after.values()), LEVEL)))


def exclusive_or(before: Tensors, after: Tensors) -> Size:
    """XOR of old and new bytes through zstd, tensor by tensor, with a header such as hubedit's."""
    changes = {name: after[name] for name in before if before[name] != after[name]}
    content = encode(changes, before.__getitem__).delta.to_bytes()
    mixed = (zstd.compress((before[n].data ^ after[n].data).tobytes(), LEVEL) for n in changes)
    return Size(header_nbytes(content) + sum(map(len, mixed)))


def header_nbytes(content: bytes) -> int:
    """Bytes of a delta before its data: names, dtypes, shapes, two digests of each tensor."""
    return 8 + int.from_bytes(content[:8], "little")


def extracted(before: Tensors, after: Tensors) -> Size:
    """The leading singular vectors of new − old in bfloat16; what is no matrix, whole."""
    nbytes = missed = 0
    for name in before:
        if before[name] == after[name]:
            continue
        if len(before[name].shape) != 2:
            nbytes += after[name].nbytes
            continue
        old = as_torch(before[name])
        u, s, vh = torch.linalg.svd(as_torch(after[name]) - old, full_matrices=False)
        root = s[:EXTRACTED_RANK].sqrt()
        left = (u[:, :EXTRACTED_RANK] * root).bfloat16()
        right = (root[:, None] * vh[:EXTRACTED_RANK]).bfloat16()
        nbytes += 2 * (left.numel() + right.numel())
        product = left.double() @ right.double()
        missed += wrong(rounded(old + product, before[name]), after[name])
    return Size(nbytes, missed)


OTHERS: Mapping[str, Callable[[Tensors, Tensors], Size]] = {
    "replace": replaced,
    "zstd of new": compressed,
    "XOR, zstd": exclusive_or,
    "new − old in bf16": subtracted,
    f"SVD, rank {EXTRACTED_RANK}": extracted,
}


def measure(steps: int, only: str) -> list[dict[str, Any]]:
    """The figures of every run."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        bases = {}
        for dtype in DTYPES:
            bases[dtype] = Path(scratch, f"base-{dtype}")
            loaded(hubedit_demo.model_path()).to(DTYPES[dtype]).save_pretrained(bases[dtype])
            AutoTokenizer.from_pretrained(hubedit_demo.model_path()).save_pretrained(bases[dtype])
        for number, (name, dtype, make) in enumerate(RUNS):
            if only not in name:
                continue
            target = Path(scratch, f"run-{number}")
            make(bases[dtype], target, dtype, steps)
            before, after = tensors(bases[dtype]), tensors(target)
            changed = sum(wrong(after[n], before[n]) for n in before)
            begin, kinds = time.perf_counter(), {}
            sizes = {"hubedit": ours(before, after, kinds)}
            seconds = time.perf_counter() - begin
            sizes["checkpoint"] = Size(sum(t.nbytes for t in after.values()))
            sizes |= {other: size(before, after) for other, size in OTHERS.items()}
            exact = {other: size.nbytes for other, size in sizes.items() if not size.wrong}
            found.append(
                {
                    "run": name,
                    "dtype": dtype,
                    "changed": changed / sum(math.prod(t.shape) for t in after.values()),
                    "kinds": kinds,
                    "seconds": round(seconds, 2),
                    "smallest_exact": min(exact, key=exact.__getitem__),
                    "sizes": {other: asdict(size) for other, size in sizes.items()},
                }
            )
    return found


def main() -> int:
    """Print one line for each run; 1 if hubedit is not exact and smallest in each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="of each training")
    parser.add_argument("--only", default="", help="runs whose name holds this")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = measure(given.steps, given.only)
    columns = list(found[0]["sizes"])
    print(f"bytes after {given.steps} steps; (n wrong): weights that are not the trained ones")
    print(f"{'':24}{'changed':>8}" + "".join(f"{column:>30}" for column in columns))
    for row in found:
        cells = (
            f"{size['nbytes']:,}" + (f" ({size['wrong']:,} wrong)" if size["wrong"] else "")
            for size in row["sizes"].values()
        )
        print(
            f"{row['run'] + ', ' + row['dtype']:24}{row['changed']:>8.2%}"
            + "".join(f"{cell:>30}" for cell in cells)
        )
        kinds = ", ".join(f"{count} {kind}" for kind, count in row["kinds"].items())
        header = row["sizes"]["hubedit"]["header"]
        print(f"{'':6}{row['seconds']} s, {header:,} bytes of header; {kinds}")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    good = all(row["smallest_exact"] == "hubedit" for row in found)
    print("hubedit is exact and the smallest of the exact ones in every row" if good else "NOT so")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
