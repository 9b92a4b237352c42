"""How fast second moments are taken, against a plain forward pass to the same layer.

    python benchmarks/stats_speed.py
    python benchmarks/stats_speed.py --layers 4 --texts 2000 --tokens 48

A model of GPT-2 small's shape (124M parameters, random weights) reads the same batches of texts
twice by turns: once only forward, up to the input of the second MLP matrix of the deepest layer,
and once with the products of all layers summed in float64. Texts are random tokens of random
lengths. Seconds are of the processor, so that other work on the machine does not count. At the end
a run is interrupted and resumed, and its bytes are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hubedit.artifacts import ArtifactStore
from hubedit.context import Run, Silent
from hubedit.inputs import batches, read_inputs
from hubedit.layouts import layout_for
from hubedit.method import Corpus
from hubedit.moments import CHUNK, FILE, Texts, divide, second_moments
from hubedit.tracing import trace


class Shape:
    """A model of GPT-2 small's shape in memory: what a statistic needs of an `EditableModel`."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: Any = GPT2LMHeadModel(GPT2Config()).eval().requires_grad_(False)
        vocabulary = {f"w{number}": number for number in range(50257)}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
        self.layout, self.device = layout_for("gpt2"), torch.device("cpu")

    def weight(self, name: str) -> torch.Tensor:
        return self.model.get_parameter(name)

    def digest(self, ignoring: Any = ()) -> str:
        return "0" * 64

    def trace(self, module: str, **how: Any) -> Any:
        return trace(self.model, module, **how)


def make_texts(count: int, tokens: int) -> Texts:
    """Texts of random words, half as long to half again as long as `tokens`."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(tokens // 2, tokens * 3 // 2, (count,), generator=draw).tolist()
    ids = [torch.randint(50257, (length,), generator=draw).tolist() for length in lengths]
    texts = [" ".join(f"w{number}" for number in own) for own in ids]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return divide(Corpus(texts, "random words", digest), count)


def make_run(root: Path) -> Run:
    return Run(torch.Generator(), 0, None, False, Silent(), ArtifactStore(root))


@contextmanager
def killed_after(model: Shape, passes: int) -> Any:
    """Break off after so many forward passes."""
    left = [passes]

    def before(_module: Any, _inputs: Any) -> None:
        if not left[0]:
            raise InterruptedError
        left[0] -= 1

    handle = model.model.transformer.h[0].register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def plain(model: Shape, modules: list[str], texts: Sequence[str], length: int) -> tuple[float, int]:
    """Seconds and tokens of a forward pass over all texts that keeps nothing."""
    seconds, tokens = 0.0, 0
    for start in range(0, len(texts), CHUNK):
        begun = time.process_time()
        for inputs, counted in batches(model, texts[start : start + CHUNK], length, True):
            read_inputs(model, modules[-1:], inputs)
            tokens += int(counted.sum())
        seconds += time.process_time() - begun
    return seconds, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="4", help="such as 4 or 3,4")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=48, help="mean length of a text")
    arguments = parser.parse_args()
    model, texts = Shape(), make_texts(arguments.texts, arguments.tokens)
    layers = sorted(int(layer) for layer in arguments.layers.split(","))
    modules = [model.layout.at("mlp_out", layer) for layer in layers]
    length = 1024
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)")
    plain(model, modules, texts.counted[: CHUNK // 4], length)  # warms up
    with tempfile.TemporaryDirectory() as scratch:
        bare, tokens = plain(model, modules, texts.counted, length)
        begun = time.process_time()
        whole = make_run(Path(scratch, "whole"))
        moments = second_moments(model, modules, texts, whole, length=length)
        counted = time.process_time() - begun
        print(f"{len(texts.counted)} texts, {tokens} tokens, layers {layers}, float64 sums")
        print(f"plain forward pass   {tokens / bare:8.0f} tokens/s  {bare:7.1f} s")
        print(f"second moments       {tokens / counted:8.0f} tokens/s  {counted:7.1f} s")
        print(f"ratio                {bare / counted:8.2f}")
        for moment in moments:
            print(f"{moment.module}: {moment.quality()}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"peak memory          {peak:8.2f} GB")
        resumed = make_run(Path(scratch, "resumed"))
        try:
            with killed_after(model, len(texts.counted) // CHUNK * 3 // 4):
                second_moments(model, modules, texts, resumed, length=length)
        except InterruptedError:
            pass
        second_moments(model, modules, texts, resumed, length=length)
        same = all(
            (whole.artifacts.root / one.artifact / FILE).read_bytes()
            == (resumed.artifacts.root / one.artifact / FILE).read_bytes()
            for one in moments
        )
        print(f"interrupted at three quarters and resumed: {'same' if same else 'OTHER'} bytes")


if __name__ == "__main__":
    main()
