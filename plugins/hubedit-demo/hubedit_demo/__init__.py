"""Small fact models that ship with hubedit, and edit cases about their world."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import hubedit
from hubedit_demo.authors import SPLITS, Authors
from hubedit_demo.world import World

__all__ = [
    "AUTHOR_MODELS",
    "MODELS",
    "Authors",
    "World",
    "cases",
    "forget_request",
    "hubedit_models",
    "model_path",
]

MODELS = ("facts-gpt2", "facts-llama", "facts-bert", "facts-t5")
"""Names of the models in this package that know facts to edit."""

AUTHOR_MODELS = ("facts-tofu", *(f"facts-tofu-without-{split}" for split in SPLITS))
"""A model that knows authors to forget, and its oracles, each trained without one split of them."""


def model_path(name: str = "facts-gpt2") -> Path:
    """The directory of a shipped model, ready for `from_pretrained`.

    Raises:
        KeyError: no model of that name is shipped.
    """
    known = (*MODELS, *AUTHOR_MODELS)
    if name not in known:
        raise KeyError(f"no demo model is called {name!r}; there is {', '.join(known)}")
    return Path(__file__).parent / "models" / name


def cases(split: str = "test", name: str = "facts-gpt2") -> list[dict[str, Any]]:
    """Edit cases of a shipped model: those of split `dev` (for tuning), `test`, or `all`.

    Each has case_id, prompt, subject, target, true_target, paraphrases, neighbours, attributes
    and split; see `World.case`.

    Raises:
        KeyError: no such model, or no such split.
    """
    if split not in ("dev", "test", "all"):
        raise KeyError(f"no split is called {split!r}; there is dev, test and all")
    lines = (model_path(name) / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) for line in lines]
    return [case for case in made if split in (case["split"], "all")]


@hubedit.hookimpl
def hubedit_models() -> list[hubedit.SmallModel]:
    """Offer the shipped models to the host, with their cases, or with requests to forget."""
    edited = [
        hubedit.SmallModel(name, model_path(name), ("dev", "test"), partial(cases, name=name))
        for name in MODELS
    ]
    requests = tuple(
        hubedit.SmallRequest(
            f"forget-{split}",
            "dev" if split == SPLITS[0] else "test",
            partial(forget_request, split),
            model_path(f"facts-tofu-without-{split}"),
        )
        for split in SPLITS
    )
    chosen = json.loads((Path(__file__).parent / "settings.json").read_text(encoding="utf-8"))
    authors = hubedit.SmallModel(
        "facts-tofu", model_path("facts-tofu"), (), lambda _: [], requests, chosen
    )
    return [*edited, authors]


def forget_request(split: int) -> list[dict[str, Any]]:
    """The request that forgets a split of the authors of `facts-tofu`, as rows of `ForgetQA`.

    Its parts: forget 208 questions about thirteen authors, retain those about all others, holdout
    those about authors that no model was told of, normal 220 general facts.

    Raises:
        KeyError: there is no such split; there are 1 to 4.
    """
    if split not in SPLITS:
        raise KeyError(f"there is no split {split!r}; there is {', '.join(map(str, SPLITS))}")
    return Authors(1).rows(split)
