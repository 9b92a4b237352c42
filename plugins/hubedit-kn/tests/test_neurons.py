"""Coarse sets by threshold, refined over prompts, in the order of attribution."""

from __future__ import annotations

import pytest
import torch
from hubedit_kn.neurons import coarse, refine

from hubedit.errors import MethodError


def test_the_threshold_is_a_share_of_the_largest_score_and_strict():
    scores = torch.tensor([[1.0, 0.2], [0.21, -3.0]], dtype=torch.float64)
    assert coarse(scores, 0.2).tolist() == [[True, False], [True, False]]
    assert not coarse(-scores.abs(), 0.0).any()


def prompts(*sets, width=6):
    """Scores of prompts that find the given neurons, each a little weaker than the one before."""
    scores = torch.zeros(len(sets), 1, width, dtype=torch.float64)
    for number, own in enumerate(sets):
        for index in own:
            scores[number, 0, index] = 1 - 0.1 * index
    return scores


def test_neurons_are_kept_that_more_than_a_share_of_the_prompts_find():
    scores = prompts([0, 1, 2], [0, 1], [0, 1], [0, 3])
    found = refine(scores, 0.2, sharing=0.7, fewest=1, most=5)
    assert found.order[: found.refined] == ((0, 0), (0, 1))
    assert found.order[found.refined :] == ((0, 2), (0, 3))
    assert found.sharing == 0.7


def test_the_share_falls_until_there_are_enough():
    scores = prompts([0, 1], [0, 2], [0, 3], [0, 4])
    found = refine(scores, 0.2, sharing=0.7, fewest=2, most=5)
    assert found.sharing == 0.2
    assert found.refined == 5


def test_the_share_rises_until_there_are_few_enough():
    scores = prompts(*[range(6)] * 8, range(3), range(3))
    found = refine(scores, 0.2, sharing=0.7, fewest=1, most=3)
    assert found.sharing == 0.8
    assert found.order[: found.refined] == ((0, 0), (0, 1), (0, 2))


def test_of_too_many_that_all_prompts_share_the_strongest_stay():
    found = refine(prompts(range(6), range(6)), 0.0, sharing=0.7, fewest=1, most=2)
    assert found.order[: found.refined] == ((0, 0), (0, 1))
    assert len(found.order) == 6


def test_an_answer_that_no_neuron_helps_is_refused():
    with pytest.raises(MethodError, match="no neuron"):
        refine(-prompts([0, 1]), 0.2, 0.7, 2, 5)
