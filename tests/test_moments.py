"""Second moments of several modules: one pass, exact after an interruption, of known quality."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import tiny
import torch

from hubedit import models
from hubedit.artifacts import ArtifactStore
from hubedit.context import Run, Silent
from hubedit.errors import MethodError, UnsupportedModelError
from hubedit.method import Corpus
from hubedit.moments import CHUNK, FILE, SAVE_EVERY, divide, quality, second_moments

WORDS = " ".join(tiny.TEXTS).split()
MANY = [" ".join(WORDS[n % 7 : n % 7 + 3 + n % 11]) for n in range(1500)]
FAMILIES = ("gpt2", "llama", "opt", "bert", "t5")


class Killed(Exception):
    pass


def texts_of(texts):
    return divide(Corpus(texts, "words", "d" * 64), len(texts))


def make_run(root):
    generator = torch.Generator().manual_seed(0)
    return Run(generator, 0, None, False, Silent(), ArtifactStore(root))


@pytest.fixture
def load(tmp_path):
    def load(family="gpt2"):
        directory = tmp_path / family
        if not directory.exists():
            tiny.make(directory, family)
        return models.load(directory)

    return load


def module_of(model, layer):
    return (model.layout.encoder or model.layout).at("mlp_out", layer)


@contextmanager
def counting(model, most=None):
    """Count forward passes of the first block, and break off after `most` of them."""
    passes = []

    def before(_module, _inputs):
        if len(passes) == most:
            raise Killed
        passes.append(1)

    name = (model.layout.encoder or model.layout).at("block", 0)
    handle = model.model.get_submodule(name).register_forward_pre_hook(before)
    try:
        yield passes
    finally:
        handle.remove()


def keys_by_hand(model, module, texts, length, skip):
    """The keys of each text, read one by one with a hook of our own."""
    kept = []
    hook = model.model.get_submodule(module).register_forward_pre_hook(
        lambda _, inputs: kept.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))
    )
    reader = model.model.get_encoder() if model.layout.encoder else model.model
    found = []
    for text in texts:
        read = model.tokenizer(
            text, truncation=True, max_length=length, return_special_tokens_mask=True
        )
        special = model.layout.architecture != "causal"
        counted = [not (special and own) for own in read["special_tokens_mask"]]
        counted[0] &= not skip
        with torch.no_grad():
            reader(torch.tensor([read["input_ids"]]))
        found.append(kept.pop()[torch.tensor(counted)].double().numpy())
    hook.remove()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_several_modules_are_measured_in_one_pass(family, load, tmp_path):
    model, texts = load(family), texts_of(MANY[:150])
    modules = [module_of(model, layer) for layer in (1, 0)]
    skip = model.layout.reader.first_token_sink
    with counting(model) as passes:
        found = second_moments(model, modules, texts, make_run(tmp_path), length=9)
    assert len(passes) == -(-len(texts.counted) // CHUNK)
    for module, moment in zip(modules, found, strict=True):
        keys = np.concatenate(keys_by_hand(model, module, texts.counted, 9, skip))
        expected = keys.T @ keys / len(keys)
        assert moment.module == module
        assert moment.tokens == len(keys)
        assert np.abs(moment.matrix.numpy() - expected).max() < 1e-6 * np.abs(expected).max()
        assert torch.equal(moment.matrix, moment.matrix.T)


def test_a_killed_pass_over_several_modules_ends_with_the_same_bytes(load, tmp_path):
    model, texts = load(), texts_of(MANY)
    modules = [module_of(model, layer) for layer in (0, 1, 2)]
    whole, killed = make_run(tmp_path / "whole"), make_run(tmp_path / "killed")
    expected = second_moments(model, modules, texts, whole, length=12)
    with counting(model, most=SAVE_EVERY + 2), pytest.raises(Killed):
        second_moments(model, modules[:2], texts, killed, length=12)
    # what was begun goes on from where it was saved, and one more module joins
    second_moments(model, modules[1:2], texts, killed, length=12)
    with counting(model, most=SAVE_EVERY + 2), pytest.raises(Killed):
        second_moments(model, modules, texts, killed, length=12)
    with counting(model) as passes:
        found = second_moments(model, modules, texts, killed, length=12)
    assert len(passes) == -(-len(texts.counted) // CHUNK) - SAVE_EVERY
    for one, other in zip(expected, found, strict=True):
        assert one.artifact == other.artifact
        for name in (FILE, "facts.json", "key.json"):
            parts = [run.artifacts.root / one.artifact / name for run in (whole, killed)]
            assert parts[0].read_bytes() == parts[1].read_bytes()


def test_an_edit_above_leaves_a_statistic_of_use_and_one_below_does_not(load, tmp_path):
    model, texts, run = load(), texts_of(MANY[:100]), make_run(tmp_path)
    matrices = [model.tensors.tensor_of[module_of(model, layer) + ".weight"] for layer in range(3)]

    def artifact(overlay):
        again = models.load(model.directory, overlay=overlay)
        return second_moments(again, [module_of(again, 1)], texts, run, length=9)[0].artifact

    first = artifact({})
    for layer, same in ((2, True), (1, True), (0, False)):
        other = model.start(matrices[layer - 1])
        assert (artifact({matrices[layer]: other}) == first) == same


def test_the_error_is_that_of_the_spread_over_texts(load, tmp_path):
    model, texts = load(), texts_of(MANY[:400])
    module = module_of(model, 1)
    (moment,) = second_moments(model, [module], texts, make_run(tmp_path), length=12)
    rows = [keys for keys in keys_by_hand(model, module, texts.counted, 12, True) if len(keys)]
    mean = moment.matrix.numpy()
    spread = sum(np.square(keys.T @ keys - len(keys) * mean).sum() for keys in rows)
    exact = np.sqrt(spread * len(rows) / (len(rows) - 1)) / moment.tokens / np.linalg.norm(mean)
    assert 0.5 < moment.error / exact < 2
    (fewer,) = second_moments(
        model, [module], texts_of(MANY[:100]), make_run(tmp_path / "few"), length=12
    )
    assert 1.4 < fewer.error / moment.error < 2.9


def test_quality_says_when_there_are_fewer_tokens_than_directions():
    assert quality(50, 64, 0.25) == "± 25.0%; singular: 50 tokens for 64 directions"
    assert quality(640, 64, 0.01) == "± 1.0%; 10.0 tokens per direction"


def test_what_cannot_be_measured_is_refused(load, tmp_path):
    run, texts = make_run(tmp_path / "store"), texts_of(MANY[:40])
    with pytest.raises(UnsupportedModelError, match="no module of a block"):
        second_moments(load(), ["lm_head"], texts, run, length=9)
    model = load("t5")
    with pytest.raises(UnsupportedModelError, match=r"encoder\.block\.0"):
        second_moments(model, [model.layout.at("mlp_out", 0)], texts, run, length=9)
    with pytest.raises(MethodError, match="at least a few hundred"):
        texts_of(["one"])
    assert not (tmp_path / "store").exists()
