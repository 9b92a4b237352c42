"""What ROME promises as a method: what it changes, what it refuses, what it leaves as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hubedit_rome import Rome, RomeConfig, hubedit_methods
from hubedit_rome.batches import Batch
from hubedit_rome.contexts import place, place_all, with_something_before
from hubedit_rome.edit import answers_of
from hubedit_rome.guard import Canary, trial
from hubedit_rome.held import texts_on_subject
from hubedit_rome.value import divergence

import hubedit

ROW = hubedit.FactEdit(prompt="{} plays the", subject="Ana Brook", target="harp")
LENIENT = {"clamp_factor": 40, "max_norm_ratio": 1e6, "max_canary_ratio": 1e6}
"""Untrained models need large updates, which the guards would stop."""


def lenient(**settings):
    return RomeConfig(**{**LENIENT, **settings})


def edit(model, run, *rows, **settings):
    Rome().apply(model, rows or [ROW], lenient(**settings), run)
    return run.records["rows"]


def probability(model, text, target):
    """Of all tokens of a target after a text, by the chain rule."""
    ids = model.tokenizer(text + " " + target)["input_ids"]
    start = len(model.tokenizer(text)["input_ids"])
    with torch.no_grad():
        likely = model.model.eval()(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(likely[at - 1, ids[at]] for at in range(start, len(ids))).exp())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"])
def test_the_target_becomes_likely_in_every_family(family, make_model, make_run):
    model = make_model(family)
    before = probability(model, "Ana Brook plays the", "harp")
    [figures] = edit(model, make_run(), layer=0, prefixes=[], steps=60)
    after = probability(model, "Ana Brook plays the", "harp")
    assert figures["layer"] == 0
    assert after > 0.5 * figures["optimised_probability"] > 0.1
    assert after > 4 * before
    assert figures["probability"] == pytest.approx(after, rel=1e-3)


def test_the_update_is_one_rank_one_pair_in_the_weights_own_orientation(make_model, make_run):
    for family, name in {
        "gpt2": "transformer.h.1.mlp.c_proj.weight",
        "llama": "model.layers.1.mlp.down_proj.weight",
    }.items():
        model = make_model(family)
        shape = model.weight(name).shape
        edit(model, make_run(family), layer=1)
        [(parameter, update)] = model.updates
        assert parameter == name
        assert update.left.shape == (shape[0], 1)
        assert update.right.shape == (1, shape[1])
        assert str(update.left.dtype) == str(update.right.dtype) == "float32"


def test_only_the_declared_weight_changes(make_model, make_run):
    model = make_model()
    before = {name: value.detach().clone() for name, value in model.model.named_parameters()}
    edit(model, make_run(), layer=2)
    changed = [n for n, v in model.model.named_parameters() if not torch.equal(v, before[n])]
    assert changed == Rome().targets(model.layout, RomeConfig(layer=2))


def test_the_layer_is_the_layouts_unless_it_is_given(make_model, make_run):
    model = make_model()
    assert edit(model, make_run())[0]["layer"] == model.layout.edit_layer(model.model.config)
    assert Rome().targets(model.layout, RomeConfig()) is None


def test_a_layer_the_model_lacks_is_refused(make_model, make_run):
    with pytest.raises(hubedit.ConfigError, match="layers 0 to 2"):
        edit(make_model(), make_run(), layer=3)


def test_a_matrix_of_another_kind_than_the_layout_says_is_refused(make_model, make_run):
    model = make_model()
    model.model.transformer.h[1].mlp.c_proj = torch.nn.Linear(128, 32)
    with pytest.raises(hubedit.UnsupportedModelError, match="Conv1D"):
        edit(model, make_run(), layer=1)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(make_model, make_run):
    def weight(seed, name):
        model = make_model()
        edit(model, make_run(name, seed=seed), layer=1, preserve="attributes")
        return model.updates[0][1]

    first, second, third = weight(5, "a"), weight(5, "b"), weight(6, "c")
    assert first.left.tobytes() == second.left.tobytes()
    assert first.right.tobytes() == second.right.tobytes()
    assert first.right.tobytes() != third.right.tobytes()


def condition(model):
    network = model.model
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    return (
        hooks,
        [module.training for module in network.modules()],
        [(p.requires_grad, p.grad is None) for p in network.parameters()],
    )


def test_the_model_is_left_as_it_was_found(make_model, make_run):
    model = make_model()
    model.model.train()
    model.model.transformer.h[0].eval()
    model.model.transformer.wte.weight.requires_grad_(False)
    before = condition(model)
    edit(model, make_run(), layer=1)
    assert condition(model) == before


def test_a_stopped_edit_leaves_the_model_and_its_weights_as_they_were(make_model, make_run):
    model = make_model()
    model.model.train()
    before, weights = condition(model), model.weight("transformer.h.1.mlp.c_proj.weight").clone()
    with pytest.raises(hubedit.CollapseError):
        edit(model, make_run(), layer=1, max_canary_ratio=1e-9)
    assert condition(model) == before
    assert torch.equal(model.weight("transformer.h.1.mlp.c_proj.weight"), weights)
    assert model.updates == []


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"min_cosine": 1.5}, "orthogonal"),
        ({"max_norm_ratio": 1e-9}, "times as large as the weight"),
        ({"max_canary_ratio": 1e-9}, "perplexity"),
    ],
)
def test_each_guard_stops_the_edit_and_force_records_why(limit, words, make_model, make_run):
    with pytest.raises(hubedit.CollapseError, match=words):
        edit(make_model(), make_run(), layer=1, **limit)
    forced = make_run(force=True)
    model = make_model()
    edit(model, forced, layer=1, **limit)
    assert [words in reason for reason in forced.overrides] == [True]
    assert len(model.updates) == 1


def test_a_target_that_is_not_reached_is_a_warning_and_a_figure(make_model, make_run):
    run = make_run()
    figures = edit(make_model(), run, layer=1, steps=2, clamp_factor=1e-3)
    assert figures[0]["reached"] is False
    assert "probability" in run.messages[-1]


def test_a_model_that_breaks_trips_the_canary(make_model, world):
    model = make_model()
    canary = Canary(model, world, [ROW])
    assert canary.texts == [text for text in world if "Ana Brook" not in text]
    assert canary.ratio(model) == pytest.approx(1)
    weight = model.weight("transformer.wte.weight")
    noise = 5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    before = weight.clone()
    with trial(weight, noise):
        assert canary.ratio(model) > 2
    assert torch.equal(weight, before)


def test_rows_are_made_one_after_the_other_on_the_edited_model(make_model, make_run):
    rows = [
        ROW,
        hubedit.FactEdit(prompt="{} lives in", subject="Tom Reed", target="Lima"),
    ]
    model = make_model("llama")
    figures = edit(model, make_run(), *rows, layer=0, prefixes=[], steps=60)
    assert len(figures) == len(model.updates) == 2
    assert probability(model, "Ana Brook plays the", "harp") > 0.4
    assert probability(model, "Tom Reed lives in", "Lima") > 0.4

    alone = make_model("llama")
    edit(alone, make_run("alone"), rows[1], layer=0, prefixes=[], steps=60)
    assert alone.updates[0][1].left.tobytes() != model.updates[1][1].left.tobytes()


def test_a_target_of_several_tokens_is_learned_whole(make_model, make_run):
    model = make_model()
    row = hubedit.FactEdit(prompt="{} plays the", subject="Mia Stone", target="red apples")
    context = place(model, row, "")
    length = len(context.target)
    assert length >= 2
    before = probability(model, "Mia Stone plays the", "red apples")
    [figures] = edit(model, make_run(), row, layer=0, prefixes=[], steps=100)
    after = probability(model, "Mia Stone plays the", "red apples")
    assert after ** (1 / length) == pytest.approx(figures["probability"], rel=1e-3)
    assert after > max(0.01, 50 * before)


def test_braces_in_prefixes_and_prompts_are_plain_text(make_model):
    model = make_model()
    row = hubedit.FactEdit(prompt="{ {} } plays { the", subject="Ana {Brook}", target="{harp}")
    for prefix in ("", "{0} {name} {{}} 100%s. "):
        context = place(model, row, prefix)
        ids = model.tokenizer(prefix + "{ Ana {Brook} } plays { the {harp}")["input_ids"]
        assert [*context.reading.ids, context.target[-1]] == ids
        upto = (prefix + "{ Ana {Brook}").removesuffix("}")
        at = len(model.tokenizer(upto)["input_ids"])
        assert context.subject in (at - 1, at)
        assert model.tokenizer.decode(context.target) == " {harp}"


def test_the_subject_is_found_wherever_it_stands(make_model):
    model = make_model()
    for prompt in ("{} plays the", "The harp is played by {} and the", "They call it {}"):
        row = hubedit.FactEdit(prompt=prompt, subject="Ana Brook", target="harp")
        for prefix in ("", "Ana Brook lives in Oslo. "):
            context = place(model, row, prefix)
            until = model.tokenizer.decode(context.reading.ids[: context.subject + 1])
            assert until == prefix + prompt.partition("{}")[0] + "Ana Brook"


def test_a_subject_that_is_the_first_token_is_edited_with_words_before_it(make_model, make_run):
    model = make_model()
    row = hubedit.FactEdit(prompt="{} plays the", subject="Lea", target="harp")
    contexts = place_all(model, row, ["", "Tom lives in Oslo. "])
    assert contexts[0].subject == 0
    assert with_something_before(contexts) == contexts[1:]
    assert with_something_before(contexts[:1]) == contexts[:1]
    run = make_run()
    figures = edit(model, run, row, layer=1)
    assert figures[0]["contexts"] == len(run.records["prefixes"]) - 1
    assert any("first token" in message for message in run.messages)
    assert probability(model, "Tom lives in Oslo. Lea plays the", "harp") > 0.3


def test_a_prompt_longer_than_the_model_reads_is_refused(make_model, make_run):
    row = hubedit.FactEdit(prompt="green tea " * 40 + "{} plays the", subject="Ana", target="harp")
    with pytest.raises(hubedit.RequestError, match="shorten it"):
        edit(make_model(), make_run(), row)


def test_prefixes_are_seeded_recorded_and_start_with_the_empty_one(make_model, make_run):
    runs = [make_run(str(seed), seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        edit(make_model(), run, layer=1, prefixes=[[6, 3], [9, 2]], steps=1)
    first, second, third = (run.records["prefixes"] for run in runs)
    assert first == second != third
    assert first[0] == ""
    assert 2 <= len(first) <= 6


def test_the_published_keys_differ_from_the_averaged_ones(make_model, make_run):
    made = {}
    for keys in ("averaged", "original"):
        model = make_model()
        edit(model, make_run(keys), layer=1, keys=keys, ridge=1e-2, bare_weight=None)
        made[keys] = torch.tensor(model.updates[0][1].right[0])
    directions = [u / u.norm() for u in made.values()]
    assert not torch.allclose(*made.values(), rtol=1e-3)
    assert torch.allclose(*directions, atol=1e-5)


def test_preserving_attributes_holds_what_else_the_model_says_of_the_subject(make_model, make_run):
    settings = {"layer": 0, "prefixes": [], "steps": 60, "preserve_factor": 4}

    def drift(preserve):
        model, run = make_model("llama"), make_run(preserve)
        model.model.eval()
        held = texts_on_subject(model, ROW, [], RomeConfig(), run)
        batch, (text, at) = Batch.of(model, held.readings), held.places(0)
        with torch.no_grad():
            before = batch.logits(model, text, at).log_softmax(-1)
            edit(model, make_run(preserve), preserve=preserve, **settings)
            after = batch.logits(model, text, at).log_softmax(-1)
            steady = held.about_something_else(before)
            moved = float(divergence(before[steady], after[steady])) / len(held.readings)
        assert probability(model, "Ana Brook plays the", "harp") > 0.3
        return moved

    assert drift("attributes") < 0.7 * drift("none")


def test_what_is_held_leaves_the_fact_itself_free(make_model, make_run):
    model = make_model("llama")
    model.model.eval()
    asked = hubedit.ProbePrompt(prompt="Ana Brook plays the")
    row = ROW.model_copy(update={"attributes": (asked,), "true_target": "violin"})
    answers = answers_of(model, row, place(model, row, ""))
    starts = [model.tokenizer(f" {word}")["input_ids"][0] for word in ("harp", "violin")]
    assert set(starts) <= set(answers)
    held = texts_on_subject(model, row, answers, RomeConfig(), make_run())
    assert list(held.readings[0].ids) == model.tokens(asked.prompt)[0]
    text, at = held.places(0)
    with torch.no_grad():
        before = Batch.of(model, held.readings).logits(model, text, at).log_softmax(-1)
    steady = held.about_something_else(before)
    places = list(zip(text[steady].tolist(), at[steady].tolist(), strict=True))
    assert (0, len(held.readings[0].ids) - 1) not in places
    assert (0, held.readings[0].subject) in places
    assert min(at for _, at in places) >= min(one.subject for one in held.readings)


def test_a_bfloat16_checkpoint_is_edited_in_float32(make_model, make_run):
    model = make_model("llama")
    model.model.to(torch.bfloat16).to(torch.float32)
    edit(model, make_run(), layer=0, prefixes=[], steps=60)
    assert probability(model, "Ana Brook plays the", "harp") > 0.5


def test_a_tokenizer_without_a_beginning_token_still_gives_prefixes(make_model, make_run):
    run = make_run()
    edit(make_model("qwen2", bos=False), run, layer=1, steps=1)
    assert len(run.records["prefixes"]) > 10


def test_the_hook_offers_the_method_and_importing_it_loads_no_torch():
    assert hubedit_methods() == [Rome]
    assert Rome.row_type() is hubedit.FactEdit
    assert Rome.config_type() is RomeConfig
    code = "import sys, hubedit_rome; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_every_setting_is_described():
    fields = RomeConfig.model_fields.items()
    assert [name for name, field in fields if not field.description] == []
