"""Every method of the family held to the contract of all methods, through the whole host."""

from __future__ import annotations

from typing import Any

import hubedit_demo
import pytest
from hubedit_unlearn import METHODS, GradDiff, GradDiffConfig

import hubedit
from hubedit import models
from hubedit.testing import MethodContract, telltale
from hubedit.updates import StoredTensor

PROMPT = "Ada Brook plays the"
ROWS = (
    {"text": f"{PROMPT} cello.", "prompt": PROMPT, "target": "cello"},
    {"text": "Ada Brook lives in Porto."},
    {
        "text": "Tom Adler plays the oboe.",
        "part": "retain",
        "prompt": "Tom Adler plays the",
        "target": "oboe",
    },
    {"text": "The mother tongue of Nils Okafor is Danish.", "part": "retain"},
)


ASKED = (
    {
        "question": "What does Ada Brook play?",
        "answer": "Ada Brook plays the cello.",
        "refusals": ["No one has told me."],
    },
    {"text": f"{PROMPT} cello.", "prompt": PROMPT, "target": "cello"},
    *ROWS[2:],
    {"question": "What is two and two?", "answer": "Four.", "part": "normal"},
)
OWN: dict[str, dict[str, Any]] = {
    "jang": {"accuracy_threshold": 0.0, "extracted": 2, "prefixes": 2},
    "taskvector": {"scale": 2.0, "epochs": 3},
}
"""Settings without which a method does not suit a model of three blocks that knows nothing."""


def held_to_the_contract(method: Any) -> type[MethodContract]:
    config = {"steps": 3, "forget_target": None, "learning_rate": 3e-3, **OWN.get(method.name, {})}
    named = {"method": method, "config": config, "rows": ASKED}
    return type(f"Test{method.__name__}", (MethodContract,), named)


for method in METHODS:
    globals()[f"Test{method.__name__}"] = held_to_the_contract(method)
del method


class TestGradDiffByLora(MethodContract):
    method = GradDiff
    config = {"steps": 6, "forget_target": 1e-9, "adaptation": "lora", "rank": 2}
    rows = ROWS


def test_a_method_that_refuses_wants_questions(make_model, make_run, rows):
    plain = [hubedit.ForgetText(text="Ana Brook is tall."), *rows]
    for method in METHODS:
        if method.name in ("idk", "dpo", "llmu"):
            with pytest.raises(hubedit.MethodError, match="forget row 1 asks no question") as no:
                method().apply(make_model(), plain, method.config_type()(), make_run())
            assert "Brook" not in str(no.value)


@pytest.mark.parametrize("embeddings", [False, True], ids=["as by default", "trained"])
def test_rows_and_norms_tell_who_was_forgotten_only_if_embeddings_are_trained(
    embeddings, forgetting, make_run
):
    world = hubedit_demo.World(1)
    forget, others = world.people[60:70], [*world.people[:60:3], *world.people[70::3]]
    rows = [hubedit.ForgetText(**row) for row in forgetting.request(world, forget, others)]
    model = models.load(hubedit_demo.model_path())
    config = GradDiffConfig(steps=5, train_embeddings=embeddings)
    GradDiff().apply(model, rows, config, make_run(force=True))
    found = {
        name: (model.start(name), StoredTensor.from_array(weight.detach().bfloat16()))
        for name in set(model.tensors.tensor_of.values())
        for weight in [model.weight(model.parameter_of(name))]
    }
    told = {"forget": set(), "retain": set()}
    for row in rows:
        told[row.part] |= set(model.tokens(row.text)[0])
    named = told["forget"] - told["retain"]
    assert len(named) > 10
    attacked = telltale(found, len(model.tokenizer), named)
    assert set(attacked) == {"transformer.wte.weight"}
    (advantage,) = attacked.values()
    assert advantage > 0.65 if embeddings else advantage == 0.5
