"""The contract of methods, held by one that claims every architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import hubedit
from hubedit import models
from hubedit.layouts import Layout
from hubedit.testing import TEXTS, MethodContract, tiny_model


class EverywhereConfig(hubedit.Config):
    """No settings."""


class Everywhere(hubedit.Method[hubedit.FactEdit, EverywhereConfig]):
    """Push one MLP matrix of any model along a fixed direction."""

    name = "everywhere"
    kind = "edit"
    architectures = frozenset({"causal", "masked", "seq2seq"})

    def targets(self, layout: Layout, config: EverywhereConfig) -> Sequence[str]:
        return [layout.mlp_out_weight(1)]

    def apply(
        self,
        model: hubedit.EditableModel,
        rows: Sequence[hubedit.FactEdit],
        config: EverywhereConfig,
        run: hubedit.RunContext,
    ) -> None:
        name = model.layout.mlp_out_weight(1)
        left, right = model.weight(name).shape
        factors = np.full((left, 1), 0.25, np.float32), np.full((1, right), 0.25, np.float32)
        model.update(name, hubedit.LowRank(*factors))


class TestEverywhere(MethodContract):
    method = Everywhere

    def test_each_claimed_architecture_has_its_model(self, architecture, model_directory):
        assert models.load(model_directory).layout.architecture == architecture


@pytest.mark.parametrize("architecture", ["causal", "masked", "seq2seq"])
def test_a_tiny_model_is_the_same_each_time_and_can_be_asked(architecture, tmp_path):
    first, second = (tiny_model(tmp_path / name, architecture) for name in ("one", "two"))
    weights = "model.safetensors"
    assert (first / weights).read_bytes() == (second / weights).read_bytes()
    model = models.load(first)
    [score] = model.target_logprobs([("Ada Brook plays the", " oboe")])
    assert score.token_ids
    assert all(logprob < 0 for logprob in score.logprobs)
    for text in TEXTS:
        unknown = model.tokenizer.unk_token_id
        assert unknown is None or unknown not in model.tokens(text)[0]
