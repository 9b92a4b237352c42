"""Every closed form and the optimisation of v* against what the paper alone says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubedit_rome import RomeConfig
from hubedit_rome.contexts import place_all
from hubedit_rome.edit import read_keys
from hubedit_rome.site import Site, at_rest
from hubedit_rome.solve import Directions, rank_one
from hubedit_rome.statistics import gather_texts, moments_of
from hubedit_rome.value import optimise

import hubedit

ROW = hubedit.FactEdit(prompt="{} plays the", subject="Ana Brook", target="red harp")
PREFIXES = ["", "Tom lives in Oslo. ", "Mia {likes} tea. "]
FAMILIES = ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"]


class Silent:
    def advance(self, steps=1, **figures):
        pass


def numpy_weight(model, site):
    weight = model.weight(site.weight).detach().double().numpy()
    return weight.T if site.conv1d else weight


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1e-1])
def test_the_update_is_the_solution_of_the_papers_equation(ridge):
    random = np.random.default_rng(0)
    samples = random.normal(size=(60, 12))
    moment = samples.T @ samples / 60
    key, other, delta = random.normal(size=12), random.normal(size=12), random.normal(size=7)
    weight = random.normal(size=(7, 12))

    u = Directions(torch.from_numpy(moment), ridge).of(torch.from_numpy(key))
    made = rank_one(u, torch.from_numpy(other), torch.from_numpy(delta))

    damped = moment + ridge * np.trace(moment) / 12 * np.eye(12)
    expected_u = np.linalg.inv(damped) @ key
    expected_u /= np.sqrt((expected_u**2).sum())
    value = weight @ other + delta
    expected_r = (value - weight @ other) / (other @ expected_u)
    assert np.abs(made.u.numpy() - expected_u).max() < 1e-9
    assert np.abs(made.r.numpy() - expected_r).max() < 1e-9
    assert made.denominator == pytest.approx(other @ expected_u, abs=1e-9)
    changed = weight + np.outer(made.r.numpy(), made.u.numpy())
    assert np.abs(changed @ other - value).max() < 1e-9


def test_without_a_statistic_the_direction_is_the_key_itself():
    key = torch.randn(9, dtype=torch.float64)
    assert torch.allclose(Directions(None, 0.1).of(key), key / key.norm())


def test_a_singular_statistic_without_ridge_is_refused_and_names_the_ridge():
    flat = torch.zeros(4, 4, dtype=torch.float64)
    flat[0, 0] = 1
    with pytest.raises(hubedit.MethodError, match="ridge"):
        Directions(flat, 0.0)


def keys_one_by_one(model, site, texts, length):
    """Keys of all tokens, one unpadded text at a time, by a plain hook."""
    kept = []
    module = model.model.get_submodule(site.mlp_out)
    hook = module.register_forward_pre_hook(lambda _, args: kept.append(args[0][0].detach()))
    with torch.no_grad():
        for text in texts:
            model.model(torch.tensor([model.tokenizer(text)["input_ids"][:length]]))
    hook.remove()
    return [keys.double().numpy() for keys in kept]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_statistic_is_the_second_moment_of_keys_with_a_word_before_them(
    family, make_model, make_run
):
    model, run = make_model(family, torch.float64), make_run()
    site, config = Site.find(model, 1), RomeConfig(statistics_length=7)
    texts = gather_texts(model, site, config, run)
    with at_rest(model.model):
        (moment,) = moments_of(model, [site], texts, config, run)
        keys = np.concatenate([k[1:] for k in keys_one_by_one(model, site, texts.counted, 7)])
    assert moment.tokens == len(keys)
    assert np.abs(moment.matrix.numpy() - keys.T @ keys / len(keys)).max() < 1e-9


def test_the_first_position_counts_when_it_is_asked_for(make_model, make_run):
    model, run = make_model("gpt2", torch.float64), make_run()
    site, config = Site.find(model, 1), RomeConfig(skip_first=False)
    texts = gather_texts(model, site, config, run)
    with at_rest(model.model):
        (moment,) = moments_of(model, [site], texts, config, run)
        keys = np.concatenate(keys_one_by_one(model, site, texts.counted, 64))
    assert moment.tokens == len(keys)
    assert np.abs(moment.matrix.numpy() - keys.T @ keys / len(keys)).max() < 1e-9


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_are_read_at_the_subjects_last_token(family, make_model):
    model = make_model(family, torch.float64)
    site = Site.find(model, 1)
    contexts = place_all(model, ROW, PREFIXES)
    with at_rest(model.model):
        keys = read_keys(model, site, contexts)
        alone = keys_one_by_one(model, site, [prefix + "Ana Brook" for prefix in PREFIXES], 64)
    for key, expected in zip(keys.numpy(), alone, strict=True):
        assert np.abs(key - expected[-1]).max() < 1e-9


def plain_optimisation(model, site, config, steps):
    """δ by the paper's loss, one text at a time over the whole model, Adam written out."""
    module = model.model.get_submodule(site.mlp_out)
    block = model.model.get_submodule(site.block)
    state = {"at": 0, "delta": None}
    seen = {}

    def add(_, __, output):
        seen["mlp"] = output[0, state["at"]].detach().norm()
        if state["delta"] is None:
            return output
        shift = torch.zeros_like(output[0])
        shift = torch.cat(
            [shift[: state["at"]], state["delta"].to(output.dtype)[None], shift[state["at"] + 1 :]]
        )
        return output + shift

    def stream(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        seen["block"] = hidden[0, state["at"]].detach().norm()

    hooks = [module.register_forward_hook(add), block.register_forward_hook(stream)]

    def following(text, at):
        state["at"] = at
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        return ids[0], model.model(ids).logits[0].log_softmax(-1)

    def last_token_of(text):
        return len(model.tokenizer(text)["input_ids"]) - 1

    target = model.tokenizer(" red harp", add_special_tokens=False)["input_ids"]
    essence_at = last_token_of("Ana Brook")
    with torch.no_grad():
        before = following("Ana Brook is a", essence_at)[1][essence_at]
        lengths = []
        for prefix in PREFIXES:
            following(prefix + "Ana Brook plays the", last_token_of(prefix + "Ana Brook"))
            lengths.append(seen["block" if config.clamp == "residual" else "mlp"])
        reference = sorted(lengths)[1] if config.clamp == "residual" else lengths[0]

    delta = torch.zeros(len(numpy_weight(model, site)), dtype=torch.float64)
    mean, square = torch.zeros_like(delta), torch.zeros_like(delta)
    for step in range(1, steps + 1):
        state["delta"] = delta.clone().requires_grad_(True)
        loss = 0.0
        for prefix in PREFIXES:
            text = prefix + "Ana Brook plays the red harp"
            ids, likely = following(text, last_token_of(prefix + "Ana Brook"))
            start = len(ids) - len(target)
            assert ids[start:].tolist() == target
            nll = -sum(likely[start - 1 + j, t] for j, t in enumerate(target)) / len(target)
            loss = loss + nll / len(PREFIXES)
        after = following("Ana Brook is a", essence_at)[1][essence_at]
        loss = loss + config.kl_factor * (after.exp() * (after - before)).sum()
        length = (state["delta"] ** 2).sum() ** 0.5 if step > 1 else 0 * state["delta"].sum()
        loss = loss + config.weight_decay * length / reference**2
        gradient = torch.autograd.grad(loss, state["delta"])[0]
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = (square / (1 - 0.999**step)).sqrt() + 1e-8
        delta = delta - config.learning_rate * (mean / (1 - 0.9**step)) / unbiased
        if delta.norm() > config.clamp_factor * reference:
            delta = delta * config.clamp_factor * reference / delta.norm()
    for hook in hooks:
        hook.remove()
    return delta


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clamp", ["residual", "mlp"])
def test_the_value_is_what_plain_gradient_descent_over_the_whole_model_finds(
    family, clamp, make_model
):
    model = make_model(family, torch.float64)
    site = Site.find(model, 1)
    config = RomeConfig(steps=9, stop_loss=0, clamp=clamp, clamp_factor=2.0, learning_rate=0.1)
    with at_rest(model.model):
        contexts = place_all(model, ROW, PREFIXES)
        value = optimise(model, site, ROW, contexts, None, config, Silent())
        expected = plain_optimisation(model, site, config, steps=8)
    assert value.steps == 8
    assert float((value.delta - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edited_matrix_answers_the_averaged_key_with_the_value(family, make_model):
    model = make_model(family, torch.float64)
    site = Site.find(model, 1)
    with at_rest(model.model):
        contexts = place_all(model, ROW, PREFIXES)
        key = read_keys(model, site, contexts).mean(0)
        value = optimise(model, site, ROW, contexts, None, RomeConfig(), Silent())
        made = rank_one(Directions(None, 0).of(key), key, value.delta)
    weight = numpy_weight(model, site)
    changed = weight + np.outer(made.r.numpy(), made.u.numpy())
    wanted = weight @ key.numpy() + value.delta.double().numpy()
    assert np.abs(changed @ key.numpy() - wanted).max() < 1e-9
