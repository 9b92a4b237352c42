"""The scores of every layer at either place against whole models written out in NumPy.

Each architecture's forward pass stands here in float64, from token ids and weights alone:
embeddings, attention, MLPs, norms and head. The neurons of one layer at one position are a free
input of it. The gradient is taken by complex steps through all that follows, attention included,
which are exact to rounding: the imaginary part of P(w + i·h·e) over h is the derivative along e.
"""

from __future__ import annotations

import numpy as np
import pytest
from hubedit_kn.attribution import attribute
from hubedit_kn.places import Prompt, places
from scipy.special import erf

SUBJECT, TEXT, ANSWER = "Ada Brook", "Ada Brook plays the", "oboe"
STEPS = 20
TINY = 1e-30


def softmax(x):
    raised = np.exp(x - x.real.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def heads(x, count):
    """[…, length, width] to […, heads, length, width of one]."""
    return x.reshape(*x.shape[:-1], count, -1).swapaxes(-2, -3)


def attention(query, key, value, count, scale, bias):
    """What each position takes from the others; `bias` is added before the softmax."""
    query, key, value = (heads(one, count) for one in (query, key, value))
    taken = softmax(query @ key.swapaxes(-1, -2) * scale + bias) @ value
    taken = taken.swapaxes(-2, -3)
    return taken.reshape(*taken.shape[:-2], -1)


def causal_mask(length):
    return np.where(np.tri(length, dtype=bool), 0.0, -np.inf)


class Numbers:
    """A model's weights in float64, and the neurons: read, or put in at one place."""

    def __init__(self, model):
        self.of = {k: v.detach().double().numpy() for k, v in model.model.state_dict().items()}
        self.config = model.model.config
        self.seen = {}
        self.put = None

    def neurons(self, layer, x):
        """The inputs of a layer's second matrix, [n, length, neurons], with those put in."""
        self.seen[layer] = x
        if self.put is None or self.put[0] != layer:
            return x
        _, position, values = self.put
        x = np.repeat(x.astype(complex), len(values), 0)
        x[:, position] = values
        return x

    def linear(self, name, x):
        return x @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]

    def conv(self, name, x):
        return x @ self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def norm(self, name, x, epsilon):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
        return x * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def rms(self, name, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * self.of[f"{name}.weight"]


def gpt2(own, inputs):
    """Probabilities [n, length, vocabulary]."""
    (ids,) = inputs["input_ids"].numpy()
    x = (own.of["transformer.wte.weight"][ids] + own.of["transformer.wpe.weight"][: len(ids)])[None]
    count = own.config.n_head
    for layer in range(own.config.n_layer):
        block = f"transformer.h.{layer}"
        mixed = own.conv(f"{block}.attn.c_attn", own.norm(f"{block}.ln_1", x, 1e-5))
        scale = (x.shape[-1] / count) ** -0.5
        taken = attention(*np.split(mixed, 3, -1), count, scale, causal_mask(len(ids)))
        x = x + own.conv(f"{block}.attn.c_proj", taken)
        inner = own.conv(f"{block}.mlp.c_fc", own.norm(f"{block}.ln_2", x, 1e-5))
        inner = inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3))) / 2
        x = x + own.conv(f"{block}.mlp.c_proj", own.neurons(layer, inner))
    return softmax(own.norm("transformer.ln_f", x, 1e-5) @ own.of["transformer.wte.weight"].T)


def bert(own, inputs):
    """Probabilities [n, length, vocabulary]."""
    (ids,) = inputs["input_ids"].numpy()
    named = "bert.embeddings"
    x = own.of[f"{named}.word_embeddings.weight"][ids]
    x = x + own.of[f"{named}.position_embeddings.weight"][: len(ids)]
    x = x + own.of[f"{named}.token_type_embeddings.weight"][0]
    x = own.norm(f"{named}.LayerNorm", x, 1e-12)[None]
    count = own.config.num_attention_heads
    for layer in range(own.config.num_hidden_layers):
        block = f"bert.encoder.layer.{layer}"
        parts = [
            own.linear(f"{block}.attention.self.{part}", x) for part in ("query", "key", "value")
        ]
        taken = attention(*parts, count, (x.shape[-1] / count) ** -0.5, 0.0)
        taken = own.linear(f"{block}.attention.output.dense", taken)
        x = own.norm(f"{block}.attention.output.LayerNorm", x + taken, 1e-12)
        inner = own.linear(f"{block}.intermediate.dense", x)
        inner = own.neurons(layer, inner * (1 + erf(inner / np.sqrt(2))) / 2)
        written = own.linear(f"{block}.output.dense", inner)
        x = own.norm(f"{block}.output.LayerNorm", x + written, 1e-12)
    x = own.linear("cls.predictions.transform.dense", x)
    x = x * (1 + erf(x / np.sqrt(2))) / 2
    x = own.norm("cls.predictions.transform.LayerNorm", x, 1e-12)
    head = own.of[f"{named}.word_embeddings.weight"]
    return softmax(x @ head.T + own.of["cls.predictions.bias"])


def t5(own, inputs, asked="encoder"):
    """Probabilities [n, length, vocabulary]; the neurons are those of one stack."""
    (ids,), (written,) = (inputs[name].numpy() for name in ("input_ids", "decoder_input_ids"))
    read = _t5_stack(own, "encoder", ids, None, asked == "encoder")
    x = _t5_stack(own, "decoder", written, read, asked == "decoder")
    return softmax(x * own.config.d_model**-0.5 @ own.of["shared.weight"].T)


def _t5_stack(own, stack, ids, read, asked):
    x, count = own.of["shared.weight"][ids][None], own.config.num_heads
    table = own.of[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    bias = np.moveaxis(table[_distances(len(ids), read is None)], -1, 0)
    bias = bias if read is None else bias + causal_mask(len(ids))

    def taken(name, x, source, bias):
        parts = [
            side @ own.of[f"{name}.{part}.weight"].T
            for part, side in (("q", x), ("k", source), ("v", source))
        ]
        return attention(*parts, count, 1.0, bias) @ own.of[f"{name}.o.weight"].T

    for layer in range(own.config.num_layers if read is None else own.config.num_decoder_layers):
        block = f"{stack}.block.{layer}.layer"
        normed = own.rms(f"{block}.0.layer_norm", x)
        x = x + taken(f"{block}.0.SelfAttention", normed, normed, bias)
        if read is not None:
            normed = own.rms(f"{block}.1.layer_norm", x)
            x = x + taken(f"{block}.1.EncDecAttention", normed, read, 0.0)
        last = f"{block}.{1 if read is None else 2}"
        inner = own.rms(f"{last}.layer_norm", x) @ own.of[f"{last}.DenseReluDense.wi.weight"].T
        inner = np.where(inner.real > 0, inner, 0)
        inner = own.neurons(layer, inner) if asked else inner
        x = x + inner @ own.of[f"{last}.DenseReluDense.wo.weight"].T
    return own.rms(f"{stack}.final_layer_norm", x)


def _distances(length, both):
    """The bucket of each distance (Raffel et al. 2020): exact when near, by logarithm beyond."""
    away = np.arange(length)[None] - np.arange(length)[:, None]
    buckets = 16 if both else 32
    far = np.abs(away) if both else np.maximum(-away, 0)
    exact = buckets // 2
    beyond = np.log(np.maximum(far, exact) / exact) / np.log(128 / exact) * (buckets - exact)
    near = np.where(far < exact, far, exact + beyond.astype(int))
    return near + (np.where(away > 0, buckets, 0) if both else 0)


WHOLE = {"causal": gpt2, "masked": bert, "seq2seq": t5}
EXACT = {"causal": 1e-9, "masked": 1e-9, "seq2seq": 1e-5}
"""How near the scores are, relative to the largest: T5's norm takes its mean in float32."""


def by_hand(model, kind, place, layer, **stack):
    """w ⊙ 1/m Σ_{k=1…m} ∂P(k/m · w)/∂w (Dai et al. 2022, equation 4), and P of the model."""
    own, inputs = Numbers(model), model.inputs([place.reading])
    chance = WHOLE[kind](own, inputs, **stack)[0, place.at, place.token]
    w = own.seen[layer][0, place.neuron]
    total = np.zeros_like(w)
    for step in range(1, STEPS + 1):
        own.put = (layer, place.neuron, step / STEPS * w + 1j * TINY * np.eye(len(w)))
        total += WHOLE[kind](own, inputs, **stack)[:, place.at, place.token].imag / TINY
    return w * total / STEPS, float(chance)


@pytest.mark.parametrize("position", ["subject", "answer"])
@pytest.mark.parametrize("kind", WHOLE)
def test_the_scores_of_every_layer_are_those_of_the_equation(make_tiny, run, kind, position):
    model = make_tiny(kind)
    model.model.double()
    layout = model.layout.reader if position == "subject" else model.layout
    stack = (
        {} if kind != "seq2seq" else {"asked": "encoder" if position == "subject" else "decoder"}
    )
    place = places(model, Prompt(TEXT, ANSWER, (0, len(SUBJECT))), position)[0]
    (found,) = attribute(model, layout, [[place]], steps=STEPS, batch=7, run=run)
    depth = layout.depth(model.model.config)
    assert depth >= 2
    for layer in range(depth):
        expected, chance = by_hand(model, kind, place, layer, **stack)
        scores = found.scores[layer].numpy() / place.share
        assert np.abs(scores - expected).max() <= EXACT[kind] * np.abs(expected).max()
        assert found.probability / place.share == pytest.approx(chance, rel=EXACT[kind])
        unread = layer == depth - 1 and position == "subject" and kind != "seq2seq"
        assert expected.any() != unread, "nothing reads the subject's place after the last block"
