"""How fast v* and z* are found, against a plain implementation of the published loop.

    python benchmarks/edit_speed.py
    python benchmarks/edit_speed.py --steps 5 --plain 1 --many 32
    python benchmarks/edit_speed.py --shape llama-1b --steps 3 --plain 1 --only rome

A model with random weights (GPT-2 small's shape, 124M parameters, or that of a Llama of 1B) is
asked for made-up facts, each after the same random prefixes. *Plain* is the loop of the papers,
written here: one request at a time, the whole model forwards and backwards in each step, logits at
every position. *Ours* is what the plugins do. Both take the same steps from the same start with the
same settings, and no early end; what they find is compared. A figure is seconds of the processor
for one edit: its keys and the optimisation. The closed form that follows is the same for both and
not in it. Plain MEMIT is timed on a few edits and multiplied. Every part runs in a process of its
own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hubedit_memit.config import MemitConfig
from hubedit_memit.values import Wish
from hubedit_memit.values import optimise as optimise_many
from hubedit_rome import RomeConfig
from hubedit_rome.contexts import Context, essence_of, place_all
from hubedit_rome.edit import read_keys
from hubedit_rome.site import Site, at_rest
from hubedit_rome.value import optimise
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from hubedit.asking import Asking
from hubedit.context import Silent
from hubedit.layouts import layout_for
from hubedit.rows import FactEdit

WORDS = 32000
GPT2: dict[str, dict[str, Any]] = {"gpt2": {}, "tiny": {"n_embd": 32, "n_layer": 8, "n_head": 2}}


class Shape(Asking):
    """A model in memory: what the optimisation needs of an `EditableModel`."""

    def __init__(self, shape: str) -> None:
        torch.manual_seed(0)
        model: Any
        if shape in GPT2:
            model = GPT2LMHeadModel(GPT2Config(**GPT2[shape]))
        else:
            config = LlamaConfig(
                vocab_size=128256,
                hidden_size=2048,
                intermediate_size=8192,
                num_hidden_layers=16,
                num_attention_heads=32,
                num_key_value_heads=8,
                tie_word_embeddings=True,
            )
            model = LlamaForCausalLM(config)
        words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(WORDS)}, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
        layout = layout_for("gpt2" if shape in GPT2 else "llama")
        super().__init__(model.eval(), tokenizer, layout, torch.device("cpu"))

    def weight(self, name: str) -> torch.Tensor:
        """The live parameter of that name."""
        return self.model.get_parameter(name)


def words(draw: torch.Generator, count: int) -> str:
    """Random words."""
    return " ".join(f"w{n}" for n in torch.randint(1, WORDS, (count,), generator=draw).tolist())


def make_rows(count: int) -> list[FactEdit]:
    """Facts of random words: subjects of three, relations of four, targets of one."""
    draw = torch.Generator().manual_seed(1)
    return [
        FactEdit.model_validate(
            {
                "prompt": "{} " + words(draw, 4),
                "subject": words(draw, 3),
                "target": words(draw, 1),
            }
        )
        for _ in range(count)
    ]


def make_prefixes(lengths: Sequence[tuple[int, int]]) -> list[str]:
    """The empty prefix and random ones, as pairs of (words, how many)."""
    draw = torch.Generator().manual_seed(2)
    return ["", *(words(draw, length) + " " for length, count in lengths for _ in range(count))]


ROME = {"clamp": "mlp", "clamp_factor": 4, "weight_decay": 0.5, "stop_loss": 0}
MEMIT = {"clamp_factor": 0.75, "weight_decay": 0.5, "stop_loss": 0}


def plain(
    model: Shape,
    place: str,
    row: FactEdit,
    contexts: Sequence[Context],
    config: Any,
    reference_at: str,
    median: bool,
) -> torch.Tensor:
    """δ of one request by the published loop (Meng et al. 2022, equation 4; 2023, equation 16).

    Args:
        place: the module to whose output δ is added at the subject's last token.
        reference_at: the module whose output's length δ is compared with.
        median: compare with the median over contexts; else with the bare prompt alone.
    """
    essence = essence_of(model, row.subject)
    readings = [*(context.reading for context in contexts), essence]
    longest = max(len(reading.ids) for reading in readings)
    ids = torch.zeros(len(readings), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for number, reading in enumerate(readings):
        ids[number, : len(reading.ids)] = torch.tensor(list(reading.ids))
        mask[number, : len(reading.ids)] = 1
    subjects = torch.tensor([reading.subject for reading in readings])
    rows = torch.arange(len(readings))
    delta: torch.Tensor | None = None
    seen: dict[str, torch.Tensor] = {}

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen["reference"] = output[0] if isinstance(output, tuple) else output

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        if delta is None:
            return output
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[rows, subjects] += delta
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    hooks = [
        model.model.get_submodule(reference_at).register_forward_hook(keep),
        model.model.get_submodule(place).register_forward_hook(add),
    ]

    def forward() -> torch.Tensor:
        logits: torch.Tensor = model.model(ids, attention_mask=mask).logits
        return logits.log_softmax(-1)

    with torch.no_grad():
        before = forward()[-1, essence.places[0]]
        lengths = seen["reference"][rows, subjects].norm(dim=-1)[:-1]
    reference = lengths.median() if median else lengths[0]
    width = seen["reference"].shape[-1]
    delta = torch.zeros(width, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    for step in range(config.steps):
        likely = forward()
        losses = [
            -torch.stack([likely[n, at, token] for at, token in targets]).mean()
            for n, targets in enumerate(
                [list(zip(one.reading.places, one.target, strict=True)) for one in contexts]
            )
        ]
        after = likely[-1, essence.places[0]]
        kl = (after.exp() * (after - before)).sum()
        loss = torch.stack(losses).mean() + config.kl_factor * kl
        loss = loss + config.weight_decay * delta.norm() / reference**2
        if step == config.steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            longest_allowed = config.clamp_factor * reference
            if delta.norm() > longest_allowed:
                delta.mul_(longest_allowed / delta.norm())
    for hook in hooks:
        hook.remove()
    return delta.detach()


def run_part(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Find δ of some edits by one way; returns seconds of the processor, peak memory and δ."""
    method, how = part.split("-")
    model = Shape(arguments.shape)
    model.model.requires_grad_(False)
    site = Site.find(model, "auto")
    found: list[torch.Tensor] = []
    with Silent().progress("") as bar:
        rows = make_rows(arguments.many)
        if method == "rome":
            config: Any = RomeConfig(steps=arguments.steps + 1, **ROME)
            rows = rows[: arguments.plain]
            place, reference, median = site.mlp_out, site.mlp_out, False
        else:
            config = MemitConfig(steps=arguments.steps + 1, **MEMIT)
            rows = rows[: arguments.plain] if how == "plain" else rows
            place, reference, median = site.block, site.block, True
        prefixes = make_prefixes(config.prefixes)
        placed = [place_all(model, row, prefixes) for row in rows]
        with torch.no_grad():
            model.model(torch.ones(4, 8, dtype=torch.int64))  # warms up
        at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        with at_rest(model.model):
            if how == "plain":
                for row, contexts in zip(rows, placed, strict=True):
                    for context in contexts:
                        read_keys(model, site, [context])
                    found.append(plain(model, place, row, contexts, config, reference, median))
            elif method == "rome":
                for row, contexts in zip(rows, placed, strict=True):
                    read_keys(model, site, contexts)
                    found.append(optimise(model, site, row, contexts, None, config, bar).delta)
            else:
                size = config.rows_at_once
                for start in range(0, len(rows), size):
                    some = placed[start : start + size]
                    read_keys(model, site, [one for contexts in some for one in contexts])
                    wishes = [
                        Wish(row.subject, [contexts])
                        for row, contexts in zip(rows[start:], some, strict=False)
                    ]
                    found += list(optimise_many(model, place, wishes, config, bar).deltas)
    return {
        "seconds": (time.process_time() - begun) / len(rows),
        "edits": len(rows),
        "start": at_start / 1e6,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "deltas": torch.stack(found[: arguments.plain]).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*GPT2, "llama-1b"], default="gpt2")
    parser.add_argument("--steps", type=int, default=20, help="steps of Adam for each edit")
    parser.add_argument("--plain", type=int, default=3, help="edits that are made the plain way")
    parser.add_argument("--many", type=int, default=100, help="edits at once for MEMIT")
    parser.add_argument("--only", choices=["rome", "memit"])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        arguments.into.write_text(json.dumps(run_part(arguments.part, arguments)))
        return
    print(f"{arguments.shape}, {arguments.steps} steps, {torch.get_num_threads()} thread(s)")
    print(f"{'':14}{'s per edit':>12}{'edits timed':>13}{'peak GB':>9}{'of it model':>13}")
    for method in [arguments.only] if arguments.only else ["rome", "memit"]:
        results = {}
        for how in ("plain", "ours"):
            with tempfile.TemporaryDirectory() as scratch:
                into = Path(scratch, "result.json")
                given = [*sys.argv[1:], "--part", f"{method}-{how}", "--into", str(into)]
                subprocess.run([sys.executable, __file__, *given], check=True)
                results[how] = one = json.loads(into.read_text())
            print(
                f"{method + ' ' + how:14}{one['seconds']:12.2f}{one['edits']:13}{one['peak']:9.2f}"
                f"{one['start']:13.2f}",
                flush=True,
            )
        plain_one, ours = results["plain"], results["ours"]
        first, second = (torch.tensor(one["deltas"]) for one in (plain_one, ours))
        apart = float(((first - second).norm(dim=-1) / first.norm(dim=-1)).max())
        print(f"{method}: {plain_one['seconds'] / ours['seconds']:.1f} times as fast per edit")
        print(f"{method}: values differ by {apart:.1e} of their length")
        if method == "memit":
            total = plain_one["seconds"] * arguments.many
            print(
                f"memit: {arguments.many} edits {ours['seconds'] * arguments.many:.0f} s; "
                f"plain {total:.0f} s (extrapolated from {plain_one['edits']})"
            )


if __name__ == "__main__":
    main()
