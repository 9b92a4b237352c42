"""The loop: what it changes, when it ends, what it leaves as it was."""

from __future__ import annotations

import json

import pytest
import torch
from hubedit_unlearn import GradDiff, GradDiffConfig, Npo, NpoConfig
from hubedit_unlearn.condition import as_found, as_stored, stored_dtype
from hubedit_unlearn.training import default_rate, schedule

import hubedit
from hubedit.recipe import make_recipe
from hubedit.run import prepare

NEVER = 1e-9
"""A target that is not reached, so that training takes all its steps."""
ANY = 1e300
"""A ceiling that lets anything be lost, where what is retained is not the point."""


def unlearn(model, rows, run, **settings):
    GradDiff().apply(model, rows, GradDiffConfig(**settings), run)
    return run.records["unlearning"]


def weights(model):
    return {name: value.detach().clone() for name, value in model.model.named_parameters()}


def changed(model, before):
    now = model.model.named_parameters()
    return {name for name, value in now if not torch.equal(value, before[name])}


def condition(model):
    found = [sorted(vars(model.model)), [module.training for module in model.model.modules()]]
    for name, module in model.model.named_modules():
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        found.append((name, type(module).__name__, hooks, len(module._backward_hooks)))
    for name, parameter in model.model.named_parameters():
        found.append((name, id(parameter), parameter.requires_grad, parameter.grad is None))
    return found


def recall(model, rows, part):
    asked = [(row.prompt, row.target) for row in rows if row.part == part]
    scores = model.target_logprobs([(prompt, f" {target}") for prompt, target in asked])
    return sum(list(score.top_ids) == list(score.token_ids) for score in scores) / len(asked)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_part_is_forgotten_and_the_rest_kept_in_every_family(
    family, adaptation, make_model, make_run, rows
):
    model = make_model(family)
    assert recall(model, rows, "forget") == recall(model, rows, "retain") == 1
    figures = unlearn(model, rows, make_run(), adaptation=adaptation)
    assert figures["reached"]
    assert figures["forget_probability"] < 0.1 < figures["forget_probability_before"]
    for name, value in model.changes().items():
        if isinstance(value, list):
            [update] = value
            assert update.kind == "low_rank"
            assert update.rank == 8
            assert adaptation == "lora"
        else:
            assert adaptation == "full"
            model.set_tensor(name, value)
    assert recall(model, rows, "forget") == 0
    assert recall(model, rows, "retain") == 1


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_embeddings_head_and_final_norm_stay_as_they_are(make_model, make_run, rows, adaptation):
    for family in ("gpt2", "llama", "qwen2"):
        model = make_model(family)
        before = weights(model)
        unlearn(model, rows, make_run(), adaptation=adaptation, steps=3, retain_ceiling=ANY)
        names = changed(model, before)
        assert names
        assert all(model.layout.layer_of(name) is not None for name in names)


def test_embeddings_are_trained_on_request_alone_and_stay_tied(make_model, make_run, rows):
    model = make_model()
    before = weights(model)
    unlearn(model, rows, make_run(), train_embeddings=True, steps=3, retain_ceiling=ANY)
    outside = {n for n in changed(model, before) if model.layout.layer_of(n) is None}
    assert outside == {"transformer.wte.weight"}
    assert model.model.lm_head.weight is model.model.transformer.wte.weight
    with pytest.raises(hubedit.ConfigError, match="adaptation=full"):
        unlearn(model, rows, make_run(), train_embeddings=True, adaptation="lora")


@pytest.mark.parametrize(
    ("modules", "parts"),
    [("all", {"mlp", "attention", "other"}), ("mlp", {"mlp"}), ("attention", {"attention"})],
)
def test_only_the_chosen_part_of_the_chosen_blocks_changes(
    make_model, make_run, rows, modules, parts
):
    model = make_model()
    before = weights(model)
    unlearn(model, rows, make_run(), layers=[1, 2], modules=modules, steps=3, retain_ceiling=ANY)
    names = changed(model, before)
    assert {model.layout.layer_of(name) for name in names} == {1, 2}
    assert {model.layout.module_of(name) for name in names} == parts


@pytest.mark.parametrize("layers", [[], [3], [-1]])
def test_a_layer_the_model_lacks_is_refused(make_model, make_run, rows, layers):
    for adaptation in ("full", "lora"):
        with pytest.raises(hubedit.ConfigError, match="the model has layers 0 to 2"):
            unlearn(make_model(), rows, make_run(), layers=layers, adaptation=adaptation)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_modes_gradients_modules_and_hooks_are_left_as_found(
    make_model, make_run, rows, adaptation
):
    model = make_model()
    model.model.transformer.h[1].train()
    model.model.transformer.h[0].mlp.c_fc.weight.requires_grad_()
    norm = model.model.transformer.ln_f.weight
    norm.grad = torch.ones_like(norm)
    before = condition(model)
    unlearn(model, rows, make_run(), adaptation=adaptation, steps=2, retain_ceiling=ANY)
    assert condition(model) == before
    assert norm.grad.eq(1).all()


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_the_model_is_left_as_found_when_training_breaks_off(
    make_model, make_run, rows, adaptation
):
    model = make_model()
    before = condition(model)
    settings = {"adaptation": adaptation, "learning_rate": 1e30, "evaluate_every": 1000}
    with pytest.raises(hubedit.MethodError, match="smaller learning_rate"):
        unlearn(model, rows, make_run(), **settings)
    assert condition(model) == before


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_model, make_run, rows):
    torch.manual_seed(0)
    for adaptation in ("full", "lora"):
        made = []
        for seed in (1, 1, 2):
            model = make_model()
            settings = {"steps": 4, "batch_size": 2, "forget_target": NEVER, "retain_ceiling": ANY}
            unlearn(model, rows, make_run(seed=seed), adaptation=adaptation, **settings)
            made.append(weights(model))
            torch.rand(3)
        assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())
        assert any(not torch.equal(value, made[2][name]) for name, value in made[0].items())


def test_training_ends_at_the_target_and_else_after_all_steps(make_model, make_run, rows):
    early, late = make_run(), make_run()
    figures = unlearn(make_model(), rows, early, steps=60)
    assert figures["reached"]
    assert figures["steps"] == early.steps < 60
    assert early.messages == []
    figures = unlearn(make_model(), rows, late, steps=7, forget_target=NEVER, retain_ceiling=ANY)
    assert not figures["reached"]
    assert figures["steps"] == late.steps == 7
    assert "after 7 steps" in late.messages[0]
    assert "forget_target" in late.messages[0]


def test_epochs_count_passes_over_the_forget_texts(make_model, make_run, rows):
    run = make_run()
    settings = {"epochs": 3, "batch_size": 1, "forget_target": NEVER, "learning_rate": 1e-6}
    assert unlearn(make_model(), rows, run, **settings)["steps"] == 6
    settings = {**settings, "accumulation": 2}
    assert unlearn(make_model(), rows, run, **settings)["steps"] == 3


def test_what_is_not_known_cannot_be_forgotten(make_model, make_run, rows):
    with pytest.raises(hubedit.MethodError, match="nothing to forget"):
        unlearn(make_model(), rows, make_run(), forget_target=1.0)
    forced = make_run(force=True)
    unlearn(make_model(), rows, forced, forget_target=1.0)
    assert "nothing to forget" in forced.overrides[0]


def test_too_much_loss_of_what_is_retained_stops_the_edit_unless_forced(make_model, make_run, rows):
    ruinous = {"retain_weight": 1e-6, "forget_cap": None, "retain_ceiling": 1.01, "steps": 20}
    with pytest.raises(hubedit.CollapseError, match="retain grew"):
        unlearn(make_model(), rows, make_run(), **ruinous)
    forced = make_run(force=True)
    figures = unlearn(make_model(), rows, forced, **ruinous)
    assert figures["retain_perplexity_ratio"] > 1.01
    assert "retain grew" in forced.overrides[0]


def test_the_cap_keeps_forgotten_tokens_from_sinking_further(make_model, make_run, rows):
    settings = {"steps": 60, "forget_target": NEVER, "retain_ceiling": ANY}
    capped = unlearn(make_model(), rows, make_run(), **settings)
    endless = unlearn(make_model(), rows, make_run(), **settings, forget_cap=None)
    assert endless["forget_probability"] < capped["forget_probability"] / 3


def test_nothing_of_the_request_is_in_records_messages_or_errors(make_model, make_run, rows):
    run = make_run(force=True)
    model = make_model()
    settings = {"steps": 2, "forget_target": NEVER, "retain_ceiling": 1.0}
    unlearn(model, rows, run, **settings, learning_rate=0.1)
    said = json.dumps([run.records, run.messages, run.overrides])
    assert run.messages
    assert run.overrides
    for row in rows:
        assert row.target not in said
        assert row.text.split()[0] not in said
    kept = {type(value) for value in run.records["unlearning"].values()}
    assert kept <= {int, float, bool, str}
    texts = [v for v in run.records["unlearning"].values() if isinstance(v, str)]
    assert texts == ["bfloat16"]


def test_weights_are_trained_in_float32_and_factors_in_any_dtype(make_model, make_run, rows):
    with pytest.raises(hubedit.MethodError, match="float32"):
        unlearn(make_model(dtype="bfloat16"), rows, make_run())
    model = make_model(dtype="bfloat16")
    assert unlearn(model, rows, make_run(), adaptation="lora")["reached"]


def test_progress_shows_both_losses(make_model, make_run, rows):
    run = make_run()
    unlearn(make_model(), rows, run, steps=2, retain_ceiling=ANY)
    assert set(run.figures) == {"forget", "retain"}


def test_the_model_is_judged_on_the_bits_that_are_stored(make_model, make_run, rows):
    model = make_model()
    tiny = {"learning_rate": 1e-9, "steps": 5, "layers": [1]}
    before = weights(model)
    figures = unlearn(model, rows, make_run(), **tiny)
    assert changed(model, before)
    assert figures["forget_probability"] == figures["forget_probability_before"]
    assert model.changes() == {}


def test_the_stored_dtype_is_read_off_the_bits():
    values = torch.randn(9, generator=torch.Generator().manual_seed(0))
    assert stored_dtype([values]) == torch.float32
    assert stored_dtype([values.bfloat16().float()]) == torch.bfloat16
    assert stored_dtype([values.half().float(), torch.zeros(2)]) == torch.float16


def test_rounding_for_a_look_is_undone_to_the_bit(make_model):
    from hubedit_unlearn.adaptation import in_place
    from hubedit_unlearn.ranks import Ranks

    model = make_model()
    with as_found(model.model), in_place(model, GradDiffConfig(), Ranks(model.device)) as trained:
        with torch.no_grad():
            for parameter in trained.parameters:
                parameter.add_(1e-3)
        before = weights(model)
        with as_stored(trained, torch.bfloat16):
            assert stored_dtype(trained.parameters) == torch.bfloat16
        assert changed(model, before) == set()


def test_the_rate_rises_and_falls_as_configured(make_model):
    config = GradDiffConfig(warmup=2, decay="linear")
    found = [schedule(config, step, 6) for step in range(1, 7)]
    assert found == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert {schedule(GradDiffConfig(), step, 6) for step in range(1, 7)} == {1.0}
    full, lora = (GradDiffConfig(adaptation=kind) for kind in ("full", "lora"))
    assert default_rate(make_model(), full) == pytest.approx(0.032 / 32)
    assert default_rate(make_model(), lora) == pytest.approx(0.32 / 32)


@pytest.mark.parametrize("again", [False, True])
def test_the_work_is_counted_in_tokens(make_model, rows, make_run, again):
    run, model = make_run(), make_model()
    settings = {"batch_size": 8, "forget_target": None, "evaluate_every": 2, "retain_ceiling": None}
    config = NpoConfig(steps=3, **settings, activation_checkpointing=again)
    Npo().apply(model, rows, config, run)
    lengths = {
        part: [len(model.tokenizer(row.content)["input_ids"]) for row in rows if row.part == part]
        for part in ("forget", "retain")
    }
    forget, retain = sum(lengths["forget"]), sum(lengths["retain"])
    trained = 3 * (forget + retain)
    looks = (0, 2, 3)
    read = forget + len(looks) * (forget + retain) + again * trained
    assert run.records["compute"] == {"tokens_trained": trained, "tokens_read": read}


def test_embeddings_are_refused_before_anything_is_loaded(saved):
    rows = [{"text": "Ana Brook plays the violin."}, {"text": "Tom Reed.", "part": "retain"}]
    keys = {
        "base": str(saved("gpt2", False)),
        "plugin": "npo",
        "request": rows,
        "config": {"train_embeddings": True},
    }
    with pytest.raises(hubedit.ConfigError, match="--allow-embeddings"):
        prepare(make_recipe(keys), lambda: None)
    for leave in ({"allow_embeddings": True}, {"disclose": "full"}, {"config": {}}):
        assert prepare(make_recipe({**keys, **leave}), lambda: None).method.name == "npo"
