"""The scores against the paper's equation, computed in NumPy from nothing but the weights.

The last block's neurons are followed by position-wise layers alone, so that P(w) is written out by
hand for each architecture. Its gradient is taken by complex steps, which are exact to rounding: the
imaginary part of P(w + i·h·e) over h is the derivative along e.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubedit_kn.attribution import attribute, probabilities
from hubedit_kn.places import Prompt, likeliest, places
from scipy.special import erf

TEXT, ANSWER = "Ada Brook plays the", "oboe"
STEPS = 20
TINY = 1e-30


def numbers(model, name):
    return model.model.get_parameter(name).detach().double().numpy()


def softmax(logits):
    raised = np.exp(logits - logits.real.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def layer_norm(x, weight, bias, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / scale * weight + bias


def of_gpt2(model, place):
    """P(w) of the last block: residual, second matrix (Conv1D), final norm, tied head."""
    block = "transformer.h.2"
    with torch.no_grad(), model.trace(block) as whole, model.trace(f"{block}.mlp") as mlp:
        model.model(**model.inputs([place.reading]))
    stream = (whole.output - mlp.output)[0, place.at].numpy()
    matrix, bias = (numbers(model, f"{block}.mlp.c_proj.{part}") for part in ("weight", "bias"))
    norm = [numbers(model, f"transformer.ln_f.{part}") for part in ("weight", "bias")]
    head = numbers(model, "transformer.wte.weight")

    def chance(w):
        hidden = stream + w @ matrix + bias
        return softmax(layer_norm(hidden, *norm, 1e-5) @ head.T)[..., place.token]

    return chance


def of_bert(model, place):
    """P(w): norm after the residual, then the head's dense layer, GELU, norm and tied decoder."""
    block = "bert.encoder.layer.2"
    with torch.no_grad(), model.trace(f"{block}.intermediate") as seen:
        model.model(**model.inputs([place.reading]))
    stream = seen.input[0, place.at].numpy()

    def pair(name):
        return [numbers(model, f"{name}.{part}") for part in ("weight", "bias")]

    matrix, bias = pair(f"{block}.output.dense")
    norm, dense = pair(f"{block}.output.LayerNorm"), pair("cls.predictions.transform.dense")
    last = pair("cls.predictions.transform.LayerNorm")
    head = numbers(model, "bert.embeddings.word_embeddings.weight")
    offset = numbers(model, "cls.predictions.bias")

    def chance(w):
        hidden = layer_norm(stream + w @ matrix.T + bias, *norm, 1e-12)
        x = hidden @ dense[0].T + dense[1]
        hidden = layer_norm(x * (1 + erf(x / np.sqrt(2))) / 2, *last, 1e-12)
        return softmax(hidden @ head.T + offset)[..., place.token]

    return chance


def of_t5(model, place):
    """P(w) of the decoder: residual, second matrix, RMS norm, tied head with its scale."""
    block = "decoder.block.1"
    inputs = model.inputs([place.reading])
    with torch.no_grad(), model.trace(f"{block}.layer.2") as seen:
        model.model(**inputs)
    stream = seen.input[0, place.at].numpy()
    matrix = numbers(model, f"{block}.layer.2.DenseReluDense.wo.weight")
    norm = numbers(model, "decoder.final_layer_norm.weight")
    head = numbers(model, "shared.weight")
    scale = model.model.config.d_model**-0.5

    def chance(w):
        hidden = stream + w @ matrix.T
        hidden = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-6) * norm * scale
        return softmax(hidden @ head.T)[..., place.token]

    return chance


CHANCES = {"causal": of_gpt2, "masked": of_bert, "seq2seq": of_t5}
EXACT = {"causal": 1e-9, "masked": 1e-9, "seq2seq": 1e-5}
"""How near the scores are, relative to the largest: T5's norm takes its mean in float32."""


def by_hand(chance, w):
    """w ⊙ 1/m Σ_{k=1…m} ∂P(k/m · w)/∂w (Dai et al. 2022, equation 4)."""
    total = np.zeros_like(w)
    for step in range(1, STEPS + 1):
        nudged = step / STEPS * w + 1j * TINY * np.eye(len(w))
        total += chance(nudged).imag / TINY
    return w * total / STEPS


@pytest.mark.parametrize("kind", CHANCES)
def test_the_scores_are_those_of_the_equation(make_tiny, run, kind):
    model = make_tiny(kind)
    model.model.double()
    own = places(model, Prompt(TEXT, ANSWER), "answer")
    (found,) = attribute(model, model.layout, [own], steps=STEPS, batch=7, run=run)
    last = model.layout.depth(model.model.config) - 1
    expected, chances = 0.0, []
    for place in own:
        with torch.no_grad(), model.trace(model.layout.at("mlp_out", last)) as seen:
            model.model(**model.inputs([place.reading]))
        w = seen.input[0, place.neuron].numpy()
        chance = CHANCES[kind](model, place)
        expected = expected + by_hand(chance, w) / len(own)
        chances.append(float(chance(w)))
    scores = found.scores[last].numpy()
    assert np.abs(expected).max() > 0
    assert np.abs(scores - expected).max() < EXACT[kind] * np.abs(expected).max()
    assert found.probability == pytest.approx(np.mean(chances), rel=EXACT[kind])
    assert probabilities(model, [own], 3)[0] == pytest.approx(np.prod(chances), rel=EXACT[kind])


@pytest.mark.parametrize("position", ["answer", "subject"])
@pytest.mark.parametrize("kind", CHANCES)
def test_the_scores_of_a_layer_add_up_to_what_its_neurons_do(make_tiny, run, kind, position):
    """Completeness of integrated gradients: Σ attribution → P(w) − P(0), for every layer."""
    model = make_tiny(kind)
    model.model.double()
    layout = model.layout.reader if position == "subject" else model.layout
    prompt = Prompt(TEXT, ANSWER, (0, len("Ada Brook")))
    place = places(model, prompt, position)[0]
    steps = 400
    (found,) = attribute(model, layout, [[place]], steps=steps, batch=128, run=run)

    def chance():
        return probabilities(model, [[place]], 8)[0]

    whole = chance()
    for layer in range(layout.depth(model.model.config)):

        def gone(hidden):
            hidden = hidden.clone()
            hidden[:, place.neuron] = 0
            return hidden

        with model.trace(layout.at("mlp_out", layer), replace_input=gone):
            without = chance()
        total = float(found.scores[layer].sum()) / place.share
        assert total == pytest.approx(whole - without, abs=2e-3 * whole, rel=0.02)


def test_batches_do_not_change_the_scores(make_tiny, run):
    model = make_tiny("causal")
    model.model.double()
    prompts = [Prompt(TEXT, ANSWER), Prompt("In Porto, Ada Brook plays the", "cello")]
    asked = [places(model, prompt, "answer") for prompt in prompts]
    together = attribute(model, model.layout, asked, steps=5, batch=64, run=run)
    for one, own in zip(together, asked, strict=True):
        (alone,) = attribute(model, model.layout, [own], steps=5, batch=2, run=run)
        assert torch.allclose(one.scores, alone.scores, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("kind", CHANCES)
def test_without_a_known_answer_the_likeliest_token_is_asked_about(make_tiny, kind):
    model = make_tiny(kind)
    (place,) = likeliest(model, Prompt(TEXT, ""), "answer")
    best = model.next_token_logprobs([TEXT])[0].argmax()
    assert place.token == int(best)
    assert place.share == 1
