"""What a change at the subject can reach: the short forward pass says what the whole one says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hubedit_rome.above import Tails, read_whole
from hubedit_rome.batches import Asked, Batch
from hubedit_rome.contexts import essence_of, place_all
from hubedit_rome.site import Site, at_rest

import hubedit

FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")
PREFIXES = ["", "We read that in Oslo. ", "Tom Reed. "]
ROWS = [
    hubedit.FactEdit(prompt="{} plays the", subject="Ana Brook", target="harp"),
    hubedit.FactEdit(prompt="In Paris {} likes", subject="Lea", target="green tea"),
]


def batch_of(model):
    contexts = [one for row in ROWS for one in place_all(model, row, PREFIXES)]
    readings = [context.reading for context in contexts] + [essence_of(model, "Ana Brook")]
    return Batch.of(model, readings), Asked.of(contexts, model.device)


@pytest.mark.parametrize("place", ["mlp_out", "block"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_tails_say_what_the_whole_readings_say(family, layer, place, make_model):
    model = make_model(family)
    site = Site.find(model, layer)
    batch, asked = batch_of(model)
    name = getattr(site, place)
    delta = torch.randn(len(batch.lookup), 32, generator=torch.Generator().manual_seed(0))
    with at_rest(model.model), torch.no_grad():
        logits, shortened = read_whole(model, batch, name, asked.text, asked.at)
        assert torch.allclose(logits, batch.logits(model, asked.text, asked.at), atol=1e-4)
        tails = shortened()
        assert isinstance(tails, Tails)
        assert tails.inputs["input_ids"].shape[1] < batch.inputs["input_ids"].shape[1]
        said = []
        for one in (batch, tails):
            with model.trace(name, replace_output=one.adding(lambda: delta)):
                said.append(one.logits(model, asked.text, asked.at))
        assert torch.allclose(*said, atol=2e-4)
        # of the last block the other tokens hear nothing
        assert (float((said[0] - logits).abs().max()) > 0.1) == (layer < 2)
        wanted = torch.tensor([True] * 3 + [False] * 3 + [True])
        some = asked.text < 3
        part = tails.only(wanted)
        with model.trace(name, replace_output=part.adding(partial(delta.__getitem__, wanted))):
            fewer = part.logits(model, asked.text[some], asked.at[some])
        assert torch.allclose(fewer, said[0][some], atol=2e-4)
    for block in range(3):
        assert "forward" not in vars(model.model.get_submodule(model.layout.at("block", block)))


def test_a_place_before_the_subject_needs_the_whole_reading(make_model):
    model = make_model()
    batch, asked = batch_of(model)
    with at_rest(model.model):
        _, shortened = read_whole(
            model, batch, Site.find(model, 1).mlp_out, asked.text, torch.zeros_like(asked.at)
        )
        assert shortened() is batch
