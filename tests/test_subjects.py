"""Where a subject stands in what a model reads, and what many readings are as one batch."""

from __future__ import annotations

import pytest
import tiny
import torch

from hubedit import models
from hubedit.errors import RequestError

SUBJECT = "Mira Castellanos"
PROMPTS = (
    "{} plays the",
    "On Monday {} plays the",
    "{} works as a [MASK] in Ghent.",
    "In Ghent a [MASK] is what {} works as.",
    "[MASK] is where {} lives",
)


@pytest.fixture(scope="module", params=["gpt2", "bert", "roberta", "t5", "bart"])
def model(request, tmp_path_factory):
    made = models.load(tiny.make(tmp_path_factory.mktemp(request.param), request.param))
    made.model.eval()
    return made


def asked(model):
    """Prompts with the characters of their subject; those with a mask for models that have one."""
    masked = model.layout.architecture == "masked"
    for prompt in PROMPTS:
        if masked or "[MASK]" not in prompt:
            start = prompt.index("{}")
            yield prompt.replace("{}", SUBJECT), (start, start + len(SUBJECT))


@pytest.mark.parametrize("answer", ["oboe", "Ivo Lindqvist moved"])
def test_what_is_read_up_to_the_subject_ends_with_its_last_word(model, answer):
    last = model.tokenizer.tokenize(f"x {SUBJECT}")[-1]
    for prompt, span in asked(model):
        for reading in (
            model.scored(prompt, f" {answer}", span)[0],
            model.next_reading(prompt, span),
        ):
            token = reading.ids[reading.subject]
            assert model.tokenizer.convert_ids_to_tokens(token) == last
            after = model.tokenizer.decode(reading.ids[reading.subject + 1 :]).lower()
            assert SUBJECT.split()[1].lower() not in after


def test_without_a_subject_none_is_located(model):
    prompt = "Ada Brook plays the"
    assert model.scored(prompt, " oboe")[0].subject is None
    assert model.next_reading(prompt).subject is None


def test_a_subject_outside_the_prompt_is_refused(model):
    with pytest.raises(RequestError, match="not within"):
        model.next_reading("Ada Brook plays the", (10, 99))


def test_a_batch_says_at_each_place_what_each_reading_says_alone(model):
    pairs = [("Ada Brook plays the", " oboe"), ("On Monday Tom Adler moved to", " Turin in Ghent")]
    readings = [model.scored(*pair)[0] for pair in pairs]
    with torch.no_grad():
        together = model.model(**model.inputs(readings)).logits
        alone = [model.model(**model.inputs([reading])).logits[0] for reading in readings]
    for number, reading in enumerate(readings):
        places = list(reading.places)
        assert torch.allclose(together[number, places], alone[number][places], atol=1e-4)
        scores = alone[number][places].log_softmax(-1)
        target = model.scored(*pairs[number])[1]
        [found] = model.target_logprobs([pairs[number]])
        expected = scores[range(len(target)), target].tolist()
        assert found.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_batch_of_nothing_is_refused(model):
    with pytest.raises(RequestError, match="at least one"):
        model.inputs([])
