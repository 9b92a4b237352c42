"""LoRA: what PEFT merges, what is handed over, and what is left behind."""

from __future__ import annotations

import pytest
import torch
from hubedit_unlearn import GradDiffConfig
from hubedit_unlearn.condition import as_found, as_stored
from hubedit_unlearn.lora import beside, linear_modules
from hubedit_unlearn.ranks import Ranks
from peft.tuners.lora import LoraLayer

import hubedit

CPU = torch.device("cpu")


def config(**settings):
    return GradDiffConfig(adaptation="lora", **settings)


def generator():
    return torch.Generator().manual_seed(5)


def stir(trained):
    """Give the factors values, as training would."""
    with torch.no_grad():
        for parameter in trained.parameters:
            parameter.normal_(0, 0.05, generator=generator())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_the_updates_are_what_peft_merges(make_model, family):
    model = make_model(family)
    before = {name: value.detach().clone() for name, value in model.model.named_parameters()}
    ids = torch.tensor([[5, 9, 40, 41]])
    with as_found(model.model):
        with beside(model, config(rank=3, alpha=7), generator(), Ranks(CPU)) as trained:
            stir(trained)
            updates = trained.updates()
            adapted = model.model(ids).logits.detach()
            wrapped = [m for m in model.model.modules() if isinstance(m, LoraLayer)]
            for module in wrapped:
                module.merge()
            merged = {n: model.weight(n).detach().clone() for n in before if n in updates}
            for module in wrapped:
                module.unmerge()
        with torch.no_grad():
            for name, value in before.items():
                model.weight(name).copy_(value)
        for name, update in updates.items():
            model.update(name, update)
    assert set(merged) == set(updates)
    for name, value in merged.items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(model.weight(name), value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.model(ids).logits, adapted, rtol=1e-4, atol=1e-5)
    assert all(update.rank == 3 for update in updates.values())


def test_what_is_looked_at_is_the_rounded_sum_of_weight_and_factors(make_model):
    model = make_model()
    ids = torch.tensor([[5, 9, 40, 41]])
    with as_found(model.model):
        with beside(model, config(), generator(), Ranks(CPU)) as trained:
            stir(trained)
            with as_stored(trained, torch.bfloat16):
                seen = model.model(ids).logits
            updates = trained.updates()
        for name, update in updates.items():
            model.update(name, update)
            rounded = model.weight(name).detach().bfloat16().float()
            model.weight(name).data.copy_(rounded)
    torch.testing.assert_close(model.model(ids).logits, seen, rtol=1e-4, atol=1e-5)


def test_untrained_factors_change_nothing(make_model):
    model = make_model()
    ids = torch.tensor([[5, 9, 40, 41]])
    before = model.model(ids).logits
    with as_found(model.model), beside(model, config(), generator(), Ranks(CPU)) as trained:
        assert len(trained.parameters) == 2 * 3 * 4
        assert torch.equal(model.model(ids).logits, before)
    assert torch.equal(model.model(ids).logits, before)


def test_factors_come_from_the_generator_of_the_run_alone(make_model):
    drawn = []
    for seed in (0, 1):
        model = make_model()
        torch.manual_seed(seed)
        with as_found(model.model), beside(model, config(), generator(), Ranks(CPU)) as trained:
            drawn.append([parameter.detach().clone() for parameter in trained.parameters])
    assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))


def test_factors_are_float32_beside_weights_of_sixteen_bits(make_model):
    model = make_model(dtype="bfloat16")
    ids = torch.tensor([[5, 9, 40, 41]])
    with as_found(model.model), beside(model, config(), generator(), Ranks(CPU)) as trained:
        assert {parameter.dtype for parameter in trained.parameters} == {torch.float32}
        model.model(ids).logits.float().sum().backward()
        assert all(parameter.grad is not None for parameter in trained.parameters)


def test_linear_modules_are_those_of_the_chosen_blocks(make_model):
    model = make_model()
    assert list(linear_modules(model, config(layers=[1], modules="mlp"))) == [
        "transformer.h.1.mlp.c_fc",
        "transformer.h.1.mlp.c_proj",
    ]
    assert "lm_head" not in linear_modules(make_model("llama"), config())


def test_a_rank_beyond_a_matrix_is_refused(make_model):
    with (
        pytest.raises(hubedit.ConfigError, match="has a side of 16"),
        beside(make_model("llama"), config(rank=17), generator(), Ranks(CPU)),
    ):
        pass
