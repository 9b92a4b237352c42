"""The statistic C as an artifact: resumable, reusable, refused when it cannot carry an edit."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from hubedit_rome import RomeConfig
from hubedit_rome.site import Site, at_rest
from hubedit_rome.statistics import gather_texts, moments_of
from safetensors.torch import load_file

import hubedit
from hubedit.moments import CHUNK, SAVE_EVERY


def moment_of(model, run, **settings):
    config = RomeConfig(**settings)
    site = Site.find(model, 1)
    with at_rest(model.model):
        return moments_of(model, [site], gather_texts(model, site, config, run), config, run)[0]


def texts_of(model, run, **settings):
    return gather_texts(model, Site.find(model, 1), RomeConfig(**settings), run)


def stored(run, moment):
    return (run.artifacts.root / moment.artifact / "second-moment.safetensors").read_bytes()


class Killed(Exception):
    pass


@contextmanager
def watched(model, most=None):
    """Give a list that gets what each forward pass reads, and break off after `most` of them."""
    read = []

    def before(_module, _inputs, given):
        if len(read) == most:
            raise Killed
        rows = zip(given["input_ids"], given["attention_mask"].sum(1), strict=True)
        read.append(
            [model.tokenizer.decode(ids[:length], skip_special_tokens=True) for ids, length in rows]
        )

    handle = model.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield read
    finally:
        handle.remove()


def test_a_killed_run_goes_on_where_it_stopped_and_ends_with_the_same_bytes(make_model, make_run):
    texts = [f"Ada Brook plays the cello in room {number}." for number in range(1600)]
    corpus = SimpleNamespace(texts=texts, source="rooms", digest="r" * 64)
    whole = make_run("whole", corpus=corpus)
    expected = stored(whole, moment_of(make_model(), whole))

    run, model = make_run("killed", corpus=corpus), make_model()
    with watched(model, most=SAVE_EVERY + 3) as read, pytest.raises(Killed):
        moment_of(model, run)
    assert len(read) == SAVE_EVERY + 3
    model = make_model()
    with watched(model) as read:
        moment = moment_of(model, run)
    assert stored(run, moment) == expected
    counted = texts_of(model, run).counted
    left = range(SAVE_EVERY * CHUNK, len(counted), CHUNK)
    assert [sorted(chunk) for chunk in read] == [sorted(counted[at : at + CHUNK]) for at in left]


def test_a_finished_statistic_is_used_again(make_model, make_run):
    run, model = make_run(), make_model()
    first = moment_of(model, run)
    with watched(model) as read:
        second = moment_of(model, run)
    assert read == []
    assert torch.equal(first.matrix, second.matrix)
    assert second.tokens == first.tokens > 0


def test_other_texts_or_another_length_make_another_statistic(make_model, make_run, corpus):
    run = make_run()
    first = moment_of(make_model(), run)
    assert moment_of(make_model(), run, statistics_length=5).artifact != first.artifact
    assert moment_of(make_model(), run, skip_first=False).artifact != first.artifact
    run.corpus = SimpleNamespace(texts=corpus.texts[:90], source="fewer", digest="d" * 64)
    assert moment_of(make_model(), run).artifact != first.artifact


def test_without_a_corpus_the_model_writes_its_own_from_the_seed(make_model, make_run):
    first, second, other = (
        make_run(name, corpus=None, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    model = make_model()
    moments = [moment_of(model, run, generated_tokens=4) for run in (first, second, other)]
    assert stored(first, moments[0]) == stored(second, moments[1])
    assert moments[2].artifact != moments[0].artifact
    assert moments[0].tokens >= 4 * 128 / 2
    assert "sampled from the model" in texts_of(model, first, generated_tokens=4).source


def test_texts_held_out_are_not_counted(make_model, make_run, corpus):
    texts = texts_of(make_model(), make_run())
    assert len(texts.counted) + len(texts.held_out) == len(corpus.texts)
    assert 1 < len(texts.held_out) <= 32


def test_too_few_tokens_are_refused_without_ridge_and_named_with_it(make_model, make_run, world):
    few = SimpleNamespace(texts=world[:6], source="six lines", digest="e" * 64)
    with pytest.raises(hubedit.MethodError, match="ridge above 0"):
        moment_of(make_model(), make_run("a", corpus=few), ridge=0)
    run = make_run("b", corpus=few)
    assert moment_of(make_model(), run).tokens < 128
    assert "six lines" in run.messages[0]


def test_a_corpus_without_any_context_is_refused(make_model, make_run):
    empty = SimpleNamespace(texts=["a", "b", "c"], source="letters", digest="f" * 64)
    with pytest.raises(hubedit.MethodError, match="no token"):
        moment_of(make_model(), make_run(corpus=empty))


def test_the_stored_statistic_says_how_many_keys_and_texts_it_holds(make_model, make_run):
    run = make_run()
    moment = moment_of(make_model(), run)
    held = load_file(run.artifacts.root / moment.artifact / "second-moment.safetensors")
    assert held["sum"].dtype == torch.float64
    assert int(held["tokens"]) == moment.tokens
    assert int(held["texts"]) == len(texts_of(make_model(), run).counted)
