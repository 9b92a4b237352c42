"""An edit as a PEFT adapter, where it is one, and how far a PEFT merge is from the exact result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hubedit.checkup import parameter_of
from hubedit.editions import Edition
from hubedit.errors import DeltaError, VerificationError
from hubedit.headers import data_order, write_header
from hubedit.layouts import Layout, layout_for
from hubedit.manifest import BaseRecord, pretty_json, touched_tensors
from hubedit.places import checkpoint
from hubedit.revisions import check_output, finished_directory
from hubedit.stored import raw
from hubedit.updates import LowRank, LowRankPacked, StoredTensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
_LINEAR = ("mlp", "attention", "head")
_README = """\
---
{header}---
# {title}

A LoRA adapter that `hubedit export` made of {edits} of `{base}`.

```python
from peft import PeftModel
from transformers import {auto}

base = {auto}.from_pretrained("{base_name}"{revision}, dtype="auto")
model = PeftModel.from_pretrained(base, ".")
```

PEFT adds the product in its own arithmetic. After a merge {differ:,} of {total:,} elements of the
changed tensors differ from the exact result, which `hubedit materialize` writes.
"""
_AUTO = {"causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}
_AUTO_OTHER = "AutoModelForMaskedLM"


@dataclass(frozen=True)
class Merged:
    """One tensor after a PEFT merge: how many elements differ from the exact result."""

    name: str
    module: str
    rank: int
    differ: int
    total: int


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    output: Path
    nbytes: int
    tensors: tuple[Merged, ...]

    @property
    def differ(self) -> int:
        """Elements that differ from the exact result after a PEFT merge."""
        return sum(item.differ for item in self.tensors)

    @property
    def total(self) -> int:
        """Elements of the changed tensors."""
        return sum(item.total for item in self.tensors)


def export_peft(edition: Edition, output: Path, *, dry_run: bool = False) -> Exported:
    """Write the whole stack as one LoRA adapter of the base.

    The updates of each tensor are concatenated; scaling is 1, and the factors stay float32.

    Args:
        edition: has edits, each of low rank on weights of linear layers.
        output: a directory that does not exist or is empty.
        dry_run: merge, count and write nothing; `nbytes` is then of the factors alone.

    Raises:
        DeltaError: an edit is not an adapter; names the tensors.
        OutputError: the directory is not empty.
        VerificationError: a tensor is rebuilt to other bits than recorded.
    """
    check_output(output)
    base = edition.stack.base
    layout = layout_for(base.model_type)
    factors = _factors(edition, layout)
    exact = _exact(edition)
    stored = checkpoint(edition.base)
    parts: dict[str, npt.NDArray[np.float32]] = {}
    merged, conv1d = [], {}
    for name, update in factors.items():
        parameter = parameter_of(name, layout)
        module = parameter.removesuffix(".weight")
        transposed = layout.conv1d and layout.module_of(parameter) != "head"
        down, up = (update.left.T, update.right.T) if transposed else (update.right, update.left)
        parts[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(down)
        parts[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(up)
        after = merged_by_peft(stored.read(name), down, up, transposed=transposed)
        differ = int(np.count_nonzero(after.bits() != exact[name].bits()))
        merged.append(Merged(name, module, update.rank, differ, after.size))
        conv1d[module] = transposed
    config = _config(
        base, layout, {item.module: item.rank for item in merged}, any(conv1d.values())
    )
    if dry_run:
        nbytes = sum(part.nbytes for part in parts.values())
        return Exported(output, nbytes, tuple(merged))
    with finished_directory(output) as work:
        nbytes = _write(work / WEIGHTS, parts)
        (work / CONFIG).write_text(pretty_json(config), encoding="utf-8")
        done = Exported(output, nbytes, tuple(merged))
        (work / "README.md").write_text(_readme(edition, layout, done), encoding="utf-8")
    return done


def merged_by_peft(
    before: StoredTensor,
    down: npt.NDArray[np.float32],
    up: npt.NDArray[np.float32],
    *,
    transposed: bool,
) -> StoredTensor:
    """What `merge_and_unload` of PEFT makes of a weight: W + B·A in float32, rounded to W's dtype.

    The order in which a product of rank above one is summed is the library's, so that a few of its
    float32 sums can differ in their last bit.

    Args:
        before: W, of dtype F32, BF16 or F16.
        down: A, float32 [r, in].
        up: B, float32 [out, r].
        transposed: whether W is stored as [in, out].
    """
    product = up @ down
    total = before.to_float32() + (product.T if transposed else product)
    return StoredTensor.from_array(np.ascontiguousarray(total)).rounded_to(before.dtype)


def _factors(edition: Edition, layout: Layout) -> dict[str, LowRank]:
    """The low-rank update of each tensor over the whole stack, sorted.

    Raises:
        DeltaError: some update is of another kind, or of a tensor that is no linear layer's.
    """
    found: dict[str, list[LowRank]] = {}
    problems: dict[str, str] = {}
    for entry, manifest in zip(edition.stack.edits, edition.manifests, strict=True):
        aliases = {tensor.name: tensor.aliases for tensor in manifest.tensors}
        problems |= {
            file.path: f"{file.path} is written by {entry.name}" for file in manifest.files
        }
        for name, update in edition.delta(entry).updates.items():
            module = layout.module_of(parameter_of(name, layout))
            if isinstance(update, LowRankPacked):
                update = update.product  # what it corrects is counted among the differences
            if not isinstance(update, LowRank):
                problems[name] = f"{name} is changed by a {update.kind} update in {entry.name}"
            elif module not in _LINEAR or not name.endswith(".weight") or aliases.get(name):
                problems[name] = f"{name} is not the weight of a linear layer by itself"
            else:
                found.setdefault(name, []).append(update)
    if not found and not problems:
        raise DeltaError(f"{edition.place.title} holds no edit, so there is nothing to export")
    if problems:
        named = list(problems.values())
        rest = f" (and {len(named) - 3} more)" if len(named) > 3 else ""
        raise DeltaError(
            f"{edition.place.title} is not a PEFT adapter: {'; '.join(named[:3])}{rest}; "
            "`hubedit materialize` writes it as plain weights"
        )
    return {name: _sum(updates) for name, updates in sorted(found.items())}


def _sum(updates: list[LowRank]) -> LowRank:
    return updates[0] if len(updates) == 1 else LowRank.concatenate(updates)


def _exact(edition: Edition) -> dict[str, StoredTensor]:
    """The changed tensors as they were published."""
    tensors = edition.overlay()
    touched = touched_tensors(edition.manifests)
    wrong = [name for name, tensor in tensors.items() if tensor.sha256() != touched[name][1]]
    if wrong:
        raise VerificationError(
            edition.place.title,
            [f"{name} is rebuilt to other bits than recorded" for name in wrong],
        )
    return tensors


def _config(
    base: BaseRecord, layout: Layout, ranks: Mapping[str, int], conv1d: bool
) -> dict[str, Any]:
    """`adapter_config.json`: LoRA of scaling 1, with ranks of their own where they differ."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    own = {module: rank for module, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": _TASKS.get(layout.architecture),
        "base_model_name_or_path": base.repo or base.directory,
        "revision": base.commit,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": own,
        "alpha_pattern": own,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": conv1d,
        "target_modules": sorted(ranks),
        "modules_to_save": None,
    }


def _write(path: Path, parts: Mapping[str, npt.NDArray[np.float32]]) -> int:
    """Write the adapter's weights in canonical form; returns the bytes."""
    shapes = {name: ("F32", array.shape) for name, array in parts.items()}
    head = write_header(shapes, {"format": "pt"})
    with path.open("wb") as file:
        file.write(head)
        for name in data_order(shapes):
            file.write(raw(parts[name]).data)
    return path.stat().st_size


def _readme(edition: Edition, layout: Layout, done: Exported) -> str:
    import yaml

    base = edition.stack.base
    name = base.repo or base.directory or "base"
    header = {
        "base_model": base.repo,
        "library_name": "peft",
        "license": base.license,
        "tags": ["hubedit", "lora"],
    }
    kept = {key: value for key, value in header.items() if value}
    count = len(edition.stack.edits)
    return _README.format(
        header=yaml.safe_dump(kept, sort_keys=True),
        title=f"{name.rpartition('/')[2]}, edited",
        edits="an edit" if count == 1 else f"{count} edits",
        base=base.title,
        base_name=name,
        revision=f', revision="{base.commit}"' if base.repo else "",
        auto=_AUTO.get(layout.architecture, _AUTO_OTHER),
        differ=done.differ,
        total=done.total,
    )
