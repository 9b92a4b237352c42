"""ROME on masked and seq2seq models: what it reads, and the optimisation of v*, in plain terms."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hubedit_rome import Rome, RomeConfig
from hubedit_rome.batches import target_probabilities
from hubedit_rome.contexts import place, place_all
from hubedit_rome.edit import read_keys
from hubedit_rome.guard import Canary, trial
from hubedit_rome.held import texts_on_subject
from hubedit_rome.prefixes import sample_prefixes
from hubedit_rome.site import Site, at_rest
from hubedit_rome.value import optimise
from plainly import asked, descended

import hubedit
from hubedit import models
from hubedit.testing import TEXTS, tiny_model

ROW = hubedit.FactEdit(prompt="In Porto {} plays the", subject="Ada Brook", target="oboe in Riga")
PREFIXES = ["", "Nils Okafor is Danish. ", "Ghent. "]


class Silent:
    def advance(self, steps=1, **figures):
        pass


@pytest.fixture(scope="session", params=["masked", "seq2seq"])
def directory(request, tmp_path_factory):
    """A model whose random weights are large enough to say something."""
    made = tiny_model(tmp_path_factory.mktemp(request.param) / "tiny", request.param)
    network = models.load(made).model
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 1.2 / parameter.shape[-1] ** 0.5)
    network.save_pretrained(made)
    return made


@pytest.fixture
def model(directory):
    return models.load(directory)


@pytest.fixture
def double(model):
    model.model.double()
    return model


def subject_at(model, prefix):
    """Where "Brook" ends in the prompt after a prefix, by cutting the text there."""
    cut = model.tokenizer(prefix + "In Porto Ada Brook")["input_ids"]
    return len(cut) - 2  # one special token is put behind


def passing(model, module, change=None):
    """Keep what passes a module; `change` is given its output and returns another."""
    seen = {}

    def hook(_, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        seen["in"], seen["out"] = args[0][0], hidden[0]
        return None if change is None else change(output)

    return seen, model.model.get_submodule(module).register_forward_hook(hook)


def test_keys_are_read_at_the_subject_with_the_answers_place_open(double):
    model = double
    site = Site.find(model, 1)
    with at_rest(model.model), torch.no_grad():
        keys = read_keys(model, site, place_all(model, ROW, PREFIXES))
        for key, prefix in zip(keys, PREFIXES, strict=True):
            seen, hook = passing(model, site.mlp_out)
            model.model(**asked(model, prefix + ROW.text, ROW.target)[0])
            hook.remove()
            assert float((key - seen["in"][subject_at(model, prefix)]).abs().max()) < 1e-9


def test_the_matrix_is_the_one_that_reads_the_subject(model):
    site = Site.find(model, "auto")
    stack = {"masked": "bert.encoder.layer", "seq2seq": "encoder.block"}[model.layout.architecture]
    assert site.weight.startswith(f"{stack}.{site.layer}.")
    assert not site.conv1d


def test_a_targets_probability_is_that_of_its_tokens_together(double):
    model = double
    inputs, places, target = asked(model, ROW.text, ROW.target)
    assert len(target) > 1
    with torch.no_grad():
        likely = model.model(**inputs).logits[0].log_softmax(-1)
    expected = likely[places, target].mean().exp()
    [found] = target_probabilities(model, [place(model, ROW, "")])
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_the_value_is_what_plain_gradient_descent_over_the_whole_model_finds(double):
    model = double
    site = Site.find(model, 1)
    config = RomeConfig(steps=7, stop_loss=0, clamp_factor=0.7, learning_rate=0.1)
    with at_rest(model.model):
        contexts = place_all(model, ROW, PREFIXES)
        value = optimise(model, site, ROW, contexts, None, config, Silent())
        expected = descended(model, ROW, PREFIXES, site.mlp_out, site.block, config, steps=6)
    assert value.steps == 6
    assert float((value.delta - expected).abs().max()) < 1e-4


def test_the_edited_matrix_puts_out_the_value_at_the_subject(model, make_run, corpus):
    corpus.texts = list(TEXTS) * 8
    config = RomeConfig(layer=1, prefixes=(), steps=6, clamp_factor=4)
    site, context = Site.find(model, 1), place(model, ROW, "")

    def put_out():
        with at_rest(model.model), torch.no_grad():
            seen, hook = passing(model, site.mlp_out)
            model.model(**model.inputs([context.reading]))
            hook.remove()
        return seen["out"][context.subject]

    with at_rest(model.model):
        value = optimise(model, site, ROW, [context], None, config, Silent())
    before, run = put_out(), make_run(force=True)
    Rome().apply(model, [ROW], config, run)
    assert float((put_out() - before - value.delta).norm()) < 1e-4 * float(value.delta.norm())
    changed = [model.parameter_of(name) for name in model.changes()]
    assert changed == Rome().targets(model.layout, config)
    found = target_probabilities(model, [context])[0]
    assert run.records["rows"][0]["probability"] == pytest.approx(found, rel=1e-3)


def test_prefixes_are_beginnings_of_texts_that_name_nothing_of_the_rows(model, make_run, corpus):
    corpus.texts = list(TEXTS)
    found = sample_prefixes(model, [(4, 5), (30, 5)], 5, make_run(), [ROW])
    assert found[0] == ""
    assert len(found) > 1
    begun = [prefix.rstrip(". ") for prefix in found[1:]]
    assert all(any(text.startswith(prefix) for text in TEXTS) for prefix in begun)
    assert not any(name in prefix for prefix in found for name in ("Ada Brook", "oboe in Riga"))
    assert found == sample_prefixes(model, [(4, 5), (30, 5)], 5, make_run(), [ROW])


def test_without_a_corpus_the_way_out_is_named(model, make_run):
    with pytest.raises(hubedit.MethodError, match="--corpus"):
        Rome().apply(model, [ROW], RomeConfig(), make_run(corpus=None))


def test_the_canary_moves_with_the_model_and_comes_back(model):
    texts = [*TEXTS, "Tom " * 300]
    canary = Canary(model, texts, [ROW])
    assert canary.texts == texts[1:]
    assert canary.ratio(model) == pytest.approx(1, abs=1e-4)
    weight = model.weight(Site.find(model, 2).weight)
    noise = 30 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    with trial(weight, noise):
        assert abs(canary.ratio(model) - 1) > 0.05
    assert canary.ratio(model) == pytest.approx(1, abs=1e-4)


def test_attributes_are_held_where_the_model_would_answer_them(model):
    """δ itself moves the answer to another question less; what an edit makes of it is its own."""
    other = "In Porto Ada Brook lives in"
    row = ROW.model_copy(update={"attributes": (hubedit.ProbePrompt(prompt=other),)})
    site, contexts = Site.find(model, 1), [place(model, ROW, "")]
    settings = {"steps": 40, "clamp_factor": 20, "preserve_factor": 300, "learning_rate": 0.1}
    config = RomeConfig(layer=1, **settings)
    reading = model.next_reading(other, (9, 18))

    def moved(held):
        with at_rest(model.model):
            delta = optimise(model, site, row, contexts, held, config, Silent()).delta

            def add(output):
                return output + delta * (torch.arange(output.shape[-2]) == reading.subject)[:, None]

            said = []
            for change in (None, add):
                _, hook = passing(model, site.mlp_out, change)
                said.append(model.next_token_logprobs([other]))
                hook.remove()
        return float((said[0].exp() * (said[0] - said[1])).sum())

    run = SimpleNamespace(generator=torch.Generator())
    held = texts_on_subject(model, row, [], config, run)
    assert [list(one.ids) for one in held.readings] == [list(reading.ids)]
    assert moved(held) < 0.5 * moved(None)


def test_without_attributes_there_is_nothing_to_hold(model, make_run, corpus):
    corpus.texts = list(TEXTS) * 8
    with pytest.raises(hubedit.ConfigError, match=r"give .* attributes"):
        Rome().apply(model, [ROW], RomeConfig(preserve="attributes"), make_run(force=True))
