"""Every closed form against the paper's equation, computed apart in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubedit_memit import solve
from hubedit_memit.config import AlphaEditConfig, EmmetConfig, MemitConfig
from hubedit_memit.solvers import of_alphaedit, of_emmet, of_memit

import hubedit

D, N, OUT = 14, 4, 6


@pytest.fixture
def numbers():
    random = np.random.default_rng(0)
    samples = random.normal(size=(60, D)) * np.geomspace(1, 1e-3, D)
    return SimpleArrays(
        moment=samples.T @ samples / 60,
        keys=random.normal(size=(D, N)),
        earlier=random.normal(size=(D, 3)),
        residual=random.normal(size=(OUT, N)),
        weight=random.normal(size=(OUT, D)),
    )


class SimpleArrays:
    def __init__(self, **arrays):
        self.__dict__.update(arrays)

    def torch(self, name):
        return torch.from_numpy(getattr(self, name))


def close(made, expected):
    return np.abs(made.numpy() - expected).max() < 1e-9 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("absolute", [None, 20.0])
def test_memits_update_is_the_papers_normal_equation(numbers, earlier, absolute):
    config = MemitConfig(ridge=1e-3, covariance_weight=0.7, absolute_weight=absolute)
    before = numbers.torch("earlier") if earlier else None
    made = of_memit(config)(numbers.torch("moment"))(numbers.torch("keys"), before)

    c = numbers.moment + 1e-3 * np.trace(numbers.moment) / D * np.eye(D)
    known = (0.7 * D if absolute is None else absolute) * c
    if earlier:
        known = known + numbers.earlier @ numbers.earlier.T
    delta = numbers.residual @ numbers.keys.T @ np.linalg.inv(known + numbers.keys @ numbers.keys.T)
    assert close(numbers.torch("residual") @ made.T, delta)


def test_memits_update_minimises_what_the_paper_minimises(numbers):
    """‖W'K − (WK + R)‖² + λ·tr((W' − W)C(W' − W)ᵀ): any step away from the solution costs."""
    c, keys, residual = numbers.moment, numbers.keys, numbers.residual
    made = solve.memit(numbers.torch("moment"), numbers.torch("keys"), 3.0)
    best = residual @ made.numpy().T

    def cost(delta):
        return ((delta @ keys - residual) ** 2).sum() + 3.0 * np.trace(delta @ c @ delta.T)

    random = np.random.default_rng(1)
    for size in (1e-1, 1e-3):
        for _ in range(20):
            assert cost(best) < cost(best + size * random.normal(size=best.shape))


@pytest.mark.parametrize("absolute", [None, 0.1])
def test_emmets_update_is_the_papers_closed_form(numbers, absolute):
    config = EmmetConfig(ridge=1e-2, epsilon=0.05, absolute_epsilon=absolute)
    made = of_emmet(config)(numbers.torch("moment"))(numbers.torch("keys"), None)

    inverse = np.linalg.inv(numbers.moment + 1e-2 * np.trace(numbers.moment) / D * np.eye(D))
    gram = numbers.keys.T @ inverse @ numbers.keys
    epsilon = 0.05 * np.trace(gram) / N if absolute is None else absolute
    right = np.linalg.inv(gram + epsilon * np.eye(N)) @ numbers.keys.T @ inverse
    assert close(numbers.torch("residual") @ made.T, numbers.residual @ right)


def test_without_slack_emmet_answers_every_key_exactly(numbers):
    config = EmmetConfig(ridge=1e-2, epsilon=0)
    made = of_emmet(config)(numbers.torch("moment"))(numbers.torch("keys"), None)
    changed = numbers.weight + numbers.residual @ made.numpy().T
    wanted = numbers.weight @ numbers.keys + numbers.residual
    assert np.abs(changed @ numbers.keys - wanted).max() < 1e-9


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("absolute", [None, 10.0])
def test_alphaedits_update_solves_the_papers_equation(numbers, earlier, absolute):
    config = AlphaEditConfig(nullspace=0.3, l2=0.2, absolute_l2=absolute)
    before = numbers.torch("earlier") if earlier else None
    made = of_alphaedit(config)(numbers.torch("moment"))(numbers.torch("keys"), before)

    values, vectors = np.linalg.eigh(numbers.moment)
    unused = vectors[:, values < 0.3 * values.mean()]
    assert 0 < unused.shape[1] < D
    p, k = unused @ unused.T, numbers.keys
    beta = 0.2 * ((p @ k) ** 2).sum() / N if absolute is None else absolute
    known = numbers.earlier @ numbers.earlier.T if earlier else np.zeros((D, D))
    delta = numbers.residual @ k.T @ p @ np.linalg.inv((known + k @ k.T) @ p + beta * np.eye(D))
    assert close(numbers.torch("residual") @ made.T, delta)


def test_alphaedit_leaves_alone_what_the_other_keys_span():
    random = np.random.default_rng(2)
    others = random.normal(size=(D, 5))
    moment = torch.from_numpy(others @ others.T)
    unused = solve.unused_directions(moment, 1e-6)
    assert unused.shape == (D, D - 5)
    made = solve.alphaedit(unused, torch.from_numpy(random.normal(size=(D, N))), 1e-3)
    assert np.abs(made.numpy().T @ others).max() < 1e-9


def test_a_bound_that_leaves_no_direction_is_refused_and_names_the_setting():
    with pytest.raises(hubedit.MethodError, match="set nullspace higher"):
        solve.unused_directions(torch.eye(4, dtype=torch.float64), 0.5)


def test_singular_equations_are_refused_and_name_the_ridge():
    flat = torch.zeros(4, 4, dtype=torch.float64)
    with pytest.raises(hubedit.MethodError, match="ridge"):
        solve.memit(flat, torch.ones(4, 1, dtype=torch.float64), 1.0)
