"""The statistic C as an artifact: resumable, reusable, refused when it cannot carry an edit."""

from __future__ import annotations

from types import SimpleNamespace

import hubedit_rome.statistics as statistics
import pytest
import torch
from hubedit_rome import RomeConfig
from hubedit_rome.site import Site, at_rest
from hubedit_rome.statistics import gather_texts, second_moment
from safetensors.torch import load_file

import hubedit


def moment_of(model, run, **settings):
    config = RomeConfig(**settings)
    site = Site.find(model, 1)
    with at_rest(model.model):
        return second_moment(model, site, gather_texts(model, site, config, run), config, run)


def texts_of(model, run, **settings):
    return gather_texts(model, Site.find(model, 1), RomeConfig(**settings), run)


def stored(run, moment):
    return (run.artifacts.root / moment.artifact / "second-moment.safetensors").read_bytes()


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_where_it_stopped_and_ends_with_the_same_bytes(
    make_model, make_run, monkeypatch
):
    monkeypatch.setattr(statistics, "CHUNK", 5)
    monkeypatch.setattr(statistics, "SAVE_EVERY", 3)
    whole = make_run("whole")
    expected = stored(whole, moment_of(make_model(), whole))

    run = make_run("killed")
    read = []
    plain = statistics.keys_of

    def dying(model, site, texts, *rest):
        if len(read) == 8:
            raise Killed
        read.append(list(texts))
        return plain(model, site, texts, *rest)

    monkeypatch.setattr(statistics, "keys_of", dying)
    with pytest.raises(Killed):
        moment_of(make_model(), run)
    monkeypatch.setattr(statistics, "keys_of", lambda *a: read.append(list(a[2])) or plain(*a))
    read_before = len(read)
    moment = moment_of(make_model(), run)
    assert stored(run, moment) == expected
    everything = texts_of(make_model(), run).counted
    again = [text for chunk in read[read_before:] for text in chunk]
    assert again == list(everything[30:])


def test_a_finished_statistic_is_used_again(make_model, make_run, monkeypatch):
    run = make_run()
    first = moment_of(make_model(), run)

    def unwanted(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(statistics, "keys_of", unwanted)
    second = moment_of(make_model(), run)
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
