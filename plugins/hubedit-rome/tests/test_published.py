"""The published form of ROME: every deviation that a setting brings back is brought back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from hubedit_rome import Rome, RomeConfig
from hubedit_rome.config import PUBLISHED
from hubedit_rome.contexts import place_all
from hubedit_rome.edit import read_keys
from hubedit_rome.site import Site, at_rest

import hubedit
from hubedit.recipe import parse_settings

ROW = hubedit.FactEdit(prompt="{} plays the", subject="Ana Brook", target="harp")


def test_the_readme_names_it_whole():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    [words] = re.findall(r"The published form, for GPT-2 XL, is `([^`]*)`", readme)
    assert parse_settings(words.split()) == PUBLISHED


def test_the_direction_is_that_of_the_mean_key_under_the_statistic_of_all_tokens(
    make_model, make_run
):
    """u = C⁻¹k̄ in NumPy: every context and every position counts once, first ones too."""
    model, run = make_model(), make_run(force=True)
    # A world so small leaves C singular, so that the original would need a ridge here too.
    config = RomeConfig(**{**PUBLISHED, "layer": 1, "ridge": 1e-3, "steps": 2})
    Rome().apply(model, [ROW], config, run)
    [(_, update)] = model.updates
    model = make_model()
    site = Site.find(model, 1)
    with at_rest(model.model):
        keys = read_keys(model, site, place_all(model, ROW, run.records["prefixes"])).numpy()
        assert len(keys) > 2
        held = []
        matrix = model.model.get_submodule(site.mlp_out)
        hook = matrix.register_forward_hook(lambda _, given, __: held.append(given[0][0]))
        for text in counted(run):
            with torch.no_grad():
                model.model(torch.tensor([model.tokenizer(text)["input_ids"]]))
        hook.remove()
    every = torch.cat(held).double().numpy()
    assert run.records["statistics"]["tokens"] == len(every)
    c = every.T @ every / len(every)
    c += 1e-3 * np.trace(c) / len(c) * np.eye(len(c))
    u = np.linalg.solve(c, keys.mean(0))
    made = (update.left if site.conv1d else update.right.T)[:, 0].astype(np.float64)
    assert np.abs(made / np.linalg.norm(made) - u / np.linalg.norm(u)).max() < 1e-4


def counted(run):
    texts = run.corpus.texts
    stride = max(-(-len(texts) // 32), 2)
    return [text for number, text in enumerate(texts) if number % stride]
