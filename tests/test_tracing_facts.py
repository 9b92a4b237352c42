"""Causal tracing: one cell by hand, the map of a model made to hold facts, and what uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hubedit_demo
import pytest
import torch

from hubedit import models
from hubedit.artifacts import ArtifactStore, cache_home
from hubedit.context import Run, Silent
from hubedit.effects import SUBJECT_END, averaged, proposed
from hubedit.locating import Fact, Tracing, embedding_deviation, trace_facts, trace_one

FACTS = Path(hubedit_demo.__file__).parent / "models" / "facts-gpt2"
ROW = {"prompt": "{} plays the", "subject": "Ada Brook"}
PROMPT = ("--prompt", ROW["prompt"], "--subject", ROW["subject"])


def by_hand(model, fact, deviation, samples, seed, module, token, layers):
    """The answer's probability with one state put back, by plain hooks on the plain model."""
    tokens = model.tokenizer(fact.prompt, return_offsets_mapping=True)
    spans = tokens["offset_mapping"]
    subject = [i for i, (a, b) in enumerate(spans) if a < fact.subject[1] and b > fact.subject[0]]
    ids = torch.tensor([tokens["input_ids"]])
    name = {"block": "", "attention": ".attn", "mlp": ".mlp"}[module]
    parts = [model.model.get_submodule(f"transformer.h.{layer}{name}") for layer in layers]
    kept = []

    def state(value):
        return value[0] if isinstance(value, tuple) else value

    hooks = [
        part.register_forward_hook(lambda _, __, out: kept.append(state(out))) for part in parts
    ]
    clean = model.model(ids).logits[0, -1].softmax(-1)
    answer = int(clean.argmax())
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(seed * 1_000_003)
    width = model.model.config.n_embd
    noise = torch.randn(samples, len(subject), width, generator=generator) * deviation

    def corrupt(own):
        def add(_, __, out):
            out = out.clone()
            out[0, subject] += own
            return out

        return add

    def restore(own):
        def put(_, __, out):
            state(out)[0, token] = own[0, token]
            return out

        return put

    total = 0.0
    for own_noise in noise:
        hooks = [model.model.transformer.wte.register_forward_hook(corrupt(own_noise))]
        hooks += [
            part.register_forward_hook(restore(own)) for part, own in zip(parts, kept, strict=True)
        ]
        total += float(model.model(ids).logits[0, -1].softmax(-1)[answer])
        for hook in hooks:
            hook.remove()
    return float(clean[answer]), total / samples


@torch.no_grad()
@pytest.mark.parametrize("module", ["block", "attention", "mlp"])
def test_a_cell_is_what_hooks_on_the_plain_model_give(module):
    model = models.load(FACTS)
    case = json.loads((FACTS / "cases.jsonl").read_text().splitlines()[3])
    start = case["prompt"].index("{}")
    prompt = case["prompt"].replace("{}", case["subject"])
    fact = Fact(prompt, (start, start + len(case["subject"])))
    deviation, how = 3 * embedding_deviation(model, [fact]), Tracing(samples=4, seed=5)
    found = trace_one(model, fact, deviation, 2, how, 0)
    token = found["roles"].index(SUBJECT_END)
    layers = [1] if module == "block" else [0, 1]
    clean, value = by_hand(model, fact, deviation, 4, 5, module, token, layers)
    assert abs(found["clean"] - clean) < 1e-6
    assert abs(found[module][token][1] - value) < 1e-6
    _, corrupted = by_hand(model, fact, deviation, 4, 5, module, token, [])
    assert abs(found["corrupted"] - corrupted) < 1e-6
    assert value > corrupted


def test_facts_are_read_at_the_subjects_last_token_in_early_blocks(hubedit, tmp_path):
    arguments = ("trace", FACTS, "--request", FACTS / "cases.jsonl", "--facts", 6, "--samples", 4)
    status, out, err = hubedit(*arguments, "--json", "-o", tmp_path / "map.png")
    assert status == 0, err
    found = json.loads(out)
    state = found["effects"]["block"]
    for layer in (0, 1, 2):
        best = max((own[layer], role) for role, own in enumerate(state) if own is not None)
        assert best[1] == SUBJECT_END
    assert state[SUBJECT_END][2] > 3 * max(state[SUBJECT_END][4:])
    assert found["layer"] in (1, 2)
    assert found["clean"] > 0.9 > found["clean"] - 0.3 > found["corrupted"]
    picture = (tmp_path / "map.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    shutil.rmtree(cache_home() / "artifacts")
    status, again, _ = hubedit(*arguments, "--json", "-o", tmp_path / "map.png")
    assert again == out
    assert (tmp_path / "map.png").read_bytes() == picture
    shown = hubedit(*arguments)[1]
    assert f"layers to edit: {', '.join(map(str, found['edit_layers']))}" in shown
    assert "last subject token    █" in shown


def test_an_edit_that_names_no_layer_takes_the_traced_one(hubedit, tiny, tmp_path):
    def edited(name):
        status, _, err = hubedit(
            *("apply", "--base", tiny, "--plugin", "rome", *PROMPT, "--target", "oboe"),
            *("--force", "--set", "steps=2", "-o", tmp_path / name),
        )
        assert status == 0, err
        (folder,) = (tmp_path / name / "edits").iterdir()
        return json.loads((folder / "manifest.json").read_text())["record"]["rows"][0]["layer"]

    def planned():
        status, out, _ = hubedit(
            *("plan", "--base", tiny, "--plugin", "rome", *PROMPT, "--target", "oboe", "--json")
        )
        assert status == 0
        return [item["name"] for item in json.loads(out)["tensors"]]

    def said():
        found = json.loads(hubedit("doctor", tiny, "--json")[1])["findings"]
        return next(item["detail"] for item in found if item["name"] == "edit layer")

    assert "none is published for 3 blocks" in said()
    default = edited("before")
    status, out, err = hubedit("trace", tiny, *PROMPT, "--samples", 2, "--json")
    assert status == 0, err
    artifact = json.loads(out)["artifact"]
    # whatever a model with random weights shows, the file says what is used
    other = (default + 1) % 3
    path = ArtifactStore().root / artifact / "trace.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer": other}))
    assert edited("after") == other
    assert planned() == [f"transformer.h.{other}.mlp.c_proj.weight"]
    assert f"{other} of 3, from a trace of 1 prompt(s)" in said()
    # what an edited model shows is not said of its base
    rows = [{**ROW, "subject": name, "target": "oboe"} for name in ("Ada Brook", "Tom Adler")]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    many = ("--request", tmp_path / "facts.jsonl", "--samples", 2, "--json")
    status, out, err = hubedit("trace", tmp_path / "after", *many)
    assert status == 0, err
    assert json.loads(out)["prompts"] == 2
    assert f"{other} of 3, from a trace of 1 prompt(s)" in said()


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
def test_every_architecture_is_traced(family, tmp_path):
    import tiny

    model = models.load(tiny.make(tmp_path / family, family))
    run = Run(torch.Generator(), 0, None, False, Silent(), ArtifactStore(tmp_path / "store"))
    mask = " [MASK]" if family == "bert" else ""
    fact = Fact(f"Ada Brook plays the{mask}", (0, 9))
    path, found = trace_facts(model, [fact], Tracing(samples=3), run)
    (one,) = json.loads((path / "prompts.json").read_text())
    assert SUBJECT_END in one["roles"]
    for module in ("block", "attention", "mlp"):
        assert len(one[module]) == len(one["tokens"])
    assert max(abs(v - one["corrupted"]) for row in one["block"] for v in row) > 1e-6
    assert found["prompts"] == 1
    # the last state at the place of the answer decides the answer alone
    if family != "t5":
        end = len(one["tokens"]) - 1 if family == "llama" else one["roles"].index(6)
        assert abs(one["block"][end][-1] - one["clean"]) < 1e-5


def test_layers_are_proposed_where_the_state_still_carries_the_fact():
    assert proposed([0.9, 1.0, 0.95, 0.4, 0.1, 0.0], [1.0, 0.4, 0.3, 0.05, 0, 0]) == [1, 2]
    assert proposed([1.0, 0.5, 0.2], [1.0, 0.9, 0.0]) == [0]
    wide = [1.0] * 18 + [0.5] * 30
    assert proposed(wide, [0.02] * 5 + [0.5] * 20 + [0.0] * 23) == [13, 14, 15, 16, 17]


def test_effects_are_means_over_tokens_then_prompts():
    part = {"corrupted": 0.25, "clean": 1.0, "roles": [1, 3, 5, 5]}
    cells = [[0.25, 0.25], [0.75, 0.5], [0.25, 0.25], [0.5, 0.75]]
    other = {**part, "roles": [3, 6], **dict.fromkeys(("block", "attention", "mlp"), cells[:2])}
    found = averaged([{**part, **dict.fromkeys(("block", "attention", "mlp"), cells)}, other], 2)
    assert found["effects"]["mlp"][3] == [(0.5 + 0.0) / 2, (0.25 + 0.0) / 2]
    assert found["effects"]["mlp"][5] == [0.125, 0.25]
    assert found["effects"]["mlp"][2] is None
    assert found["counts"] == [0, 1, 0, 2, 0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--request FILE"),
        (("--prompt", "Ada plays the", "--subject", "Ada"), "no {}"),
        (("--request", "facts.jsonl", "--subject", "Ada"), "leave one out"),
    ],
)
def test_facts_must_be_named(hubedit, tiny, arguments, said):
    status, _, err = hubedit("trace", tiny, *arguments)
    assert status == 1
    assert said in err


def test_prompts_that_the_model_does_not_answer_are_left_out(hubedit, tiny, tmp_path):
    row = {**ROW, "target": "oboe", "true_target": "bassoon"}
    (tmp_path / "facts.jsonl").write_text(json.dumps(row))
    status, _, err = hubedit("trace", tiny, "--request", tmp_path / "facts.jsonl")
    assert status == 1
    assert "none of the 1 prompts" in err
