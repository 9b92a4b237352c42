"""The methods on models that are not causal: what is optimised for is what comes about."""

from __future__ import annotations

import pytest
import torch
from hubedit_memit import Emmet, EmmetConfig, Memit, MemitConfig
from hubedit_memit.layers import check_layers, default_layers
from hubedit_memit.states import read, weigh
from hubedit_memit.values import Wish, optimise
from hubedit_rome.contexts import place_all
from hubedit_rome.prefixes import sample_prefixes
from hubedit_rome.site import Site, at_rest
from plainly import descended
from transformers import BartConfig, BartForConditionalGeneration

import hubedit
from hubedit import models
from hubedit.layouts import layout_for
from hubedit.testing import TEXTS, tiny_model

ROWS = [
    hubedit.FactEdit(prompt="{} plays the", subject="Ada Brook", target="red oboe"),
    hubedit.FactEdit(prompt="At noon {} lives in", subject="Tom Adler", target="Ghent"),
    hubedit.FactEdit(prompt="{} works as a", subject="Mira Castellanos", target="glazier"),
]


class Silent:
    def advance(self, steps=1, **figures):
        pass


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    """A BERT, a T5 and a BART, with random weights."""
    root = tmp_path_factory.mktemp("ports")
    found = {
        "bert": tiny_model(root / "bert", "masked"),
        "t5": tiny_model(root / "t5", "seq2seq"),
        "bart": tiny_model(root / "bart", "seq2seq"),
    }
    tokenizer = models.load(found["t5"]).tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = BartConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=3,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            init_std=0.2,
        )
        BartForConditionalGeneration(config).save_pretrained(found["bart"])
    return found


@pytest.mark.parametrize("family", ["bert", "t5", "bart"])
def test_without_slack_the_states_become_what_was_optimised_for(family, directories, make_run):
    """One layer written with equality moves every mean state by δ, where δ was added."""
    model, run = models.load(directories[family]), make_run()
    assert model.layout.model_type == family
    site, config = Site.find(model, 1), EmmetConfig(steps=4, absolute_epsilon=0, layers=(1,))
    place = site.block if family == "t5" else site.mlp_out
    with at_rest(model.model):
        prefixes = sample_prefixes(model, config.prefixes, config.prefix_top_k, run, ROWS)
        placed = [place_all(model, row, prefixes) for row in ROWS]
        groups = [weigh(own[:1], own[1:], 0.5, True) for own in placed]
        wishes = [Wish(row.subject, [own]) for row, own in zip(ROWS, placed, strict=True)]
        deltas = optimise(model, place, wishes, config, Silent()).deltas.double()
        _, before = read(model, site, place, groups)
    Emmet().apply(model, ROWS, config, make_run())
    with at_rest(model.model):
        _, after = read(model, site, place, groups)
    assert float((after - before - deltas.T).abs().max()) < 1e-3 * float(deltas.abs().max())


PREFIXES = ["", "Nils Okafor is Danish. ", "Ghent. "]


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_all_states_at_once_are_those_that_plain_descent_finds_one_by_one(family, directories):
    model = models.load(directories[family])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in (one for one in model.model.parameters() if one.ndim == 2):
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * 1.2 / weight.shape[-1] ** 0.5)
    model.model.double()
    site = Site.find(model, 1)
    place = site.block if family == "t5" else site.mlp_out
    config = EmmetConfig(steps=7, stop_loss=0, learning_rate=0.1, clamp_factor=0.7)
    wishes = [Wish(row.subject, [place_all(model, row, PREFIXES)]) for row in ROWS]
    with at_rest(model.model):
        found = optimise(model, place, wishes, config, Silent())
        for number, row in enumerate(ROWS):
            expected = descended(model, row, PREFIXES, place, place, config, steps=6)
            assert float(expected.norm()) > 0.1
            assert float((found.deltas[number] - expected).abs().max()) < 1e-4
    assert found.steps == [6, 6, 6]


def test_a_t5s_layers_share_what_is_to_be_added(directories, make_run):
    model = models.load(directories["t5"])
    Memit().apply(model, ROWS, MemitConfig(steps=3), make_run())
    layers = [model.layout.layer_of(model.parameter_of(name)) for name in model.changes()]
    assert layers == [0, 1]


def test_a_block_that_normalises_what_it_adds_up_is_edited_alone(directories, make_run):
    model = models.load(directories["bart"])
    config = model.model.config
    assert default_layers(layout_for("bart").reader, config) == (1,)
    Memit().apply(model, ROWS, MemitConfig(steps=3), make_run())
    assert len(model.changes()) == 1
    with pytest.raises(hubedit.ConfigError, match=r"name one, such as layers=\[1\]"):
        check_layers(layout_for("bart").reader, (0, 1))


@pytest.mark.parametrize("family", ["bert", "t5", "bart"])
def test_layouts_say_whether_a_block_is_the_sum_of_its_parts(family, directories):
    """What is added to the matrix's output reaches the block's output as it is, or normalised."""
    model = models.load(directories[family])
    site, layout = Site.find(model, 1), model.layout.reader
    reading = model.inputs([model.next_reading(TEXTS[0])])
    delta = torch.linspace(-1, 1, 32)
    with torch.no_grad(), model.trace(site.block) as seen:
        model.model(**reading)
        before = seen.output
        with model.trace(site.mlp_out, replace_output=lambda hidden: hidden + delta):
            model.model(**reading)
    moved = seen.output - before
    assert torch.allclose(moved, delta.expand_as(moved), atol=1e-4) != layout.post_norm
