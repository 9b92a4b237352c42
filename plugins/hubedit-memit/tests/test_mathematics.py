"""Keys, states z* and the spreading over layers against plain computations of the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubedit_memit import AlphaEditConfig, Emmet, EmmetConfig, Memit, MemitConfig, solvers
from hubedit_memit.keys import Layer
from hubedit_memit.states import read, weigh
from hubedit_memit.values import Wish, optimise
from hubedit_rome.contexts import place_all, with_something_before
from hubedit_rome.prefixes import sample_prefixes
from hubedit_rome.site import Site, at_rest

import hubedit

ROWS = [
    hubedit.FactEdit(prompt="{} plays the", subject="Ada Brook", target="red oboe"),
    hubedit.FactEdit(prompt="At noon {} lives in", subject="Tom Adler", target="Ghent"),
    hubedit.FactEdit(prompt="{} works as a", subject="Mira Castellanos", target="glazier"),
]
PREFIXES = ["", "Tom Adler plays the oboe. ", "Riga. "]


class Silent:
    def advance(self, steps=1, **figures):
        pass


def passed(model, text, module):
    """Input and output of a module for one text alone, float64 [tokens, width]."""
    kept = {}

    def see(_, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        kept["in"], kept["out"] = args[0][0], hidden[0]

    hook = model.model.get_submodule(module).register_forward_hook(see)
    with torch.no_grad():
        model.model(torch.tensor([model.tokenizer(text)["input_ids"]]))
    hook.remove()
    return kept["in"].double().numpy(), kept["out"].double().numpy()


def at_subject(model, row, prefix, module):
    """What passes through a module at the subject's last token, by cutting the text there."""
    cut = (prefix + row.text)[: len(prefix) + row.subject_span[1]]
    seen, made = passed(model, cut, module)
    return seen[-1], made[-1]


def test_keys_and_states_are_half_the_bare_prompts_and_half_the_others(tiny):
    tiny.model.double()
    site, block = Site.find(tiny, 0), tiny.layout.at("block", 1)
    placed = [place_all(tiny, row, PREFIXES) for row in ROWS]
    groups = [weigh(own[:1], own[1:], 0.5, True) for own in placed]
    keys, states = read(tiny, site, block, groups)
    for number, row in enumerate(ROWS):
        for found, module, side in ((keys, site.mlp_out, 0), (states, block, 1)):
            each = [at_subject(tiny, row, prefix, module)[side] for prefix in PREFIXES]
            expected = 0.5 * each[0] + 0.25 * (each[1] + each[2])
            assert np.abs(found[:, number].numpy() - expected).max() < 1e-9


def plain_delta(model, row, block, config, steps):
    """δ of one row by the paper's loss, one text at a time over the whole model."""
    module = model.model.get_submodule(block)
    state = {"at": 0, "delta": None, "norm": 0.0}

    def add(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        state["norm"] = float(hidden[0, state["at"]].detach().norm())
        if state["delta"] is None:
            return output
        hidden = hidden.clone()
        hidden[0, state["at"]] = hidden[0, state["at"]] + state["delta"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    hook = module.register_forward_hook(add)

    def likely(text, at):
        state["at"] = at
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        return ids[0], model.model(ids).logits[0].log_softmax(-1)

    def last(text):
        return len(model.tokenizer(text)["input_ids"]) - 1

    target = model.tokenizer(" " + row.target, add_special_tokens=False)["input_ids"]
    places = [last((p + row.text)[: len(p) + row.subject_span[1]]) for p in PREFIXES]
    with torch.no_grad():
        before = likely(f"{row.subject} is a", last(row.subject))[1][last(row.subject)]
        norms = []
        for prefix, at in zip(PREFIXES, places, strict=True):
            likely(prefix + row.text, at)
            norms.append(state["norm"])
    reference = norms[0] if config.reference == "bare" else sorted(norms)[len(norms) // 2]

    delta = torch.zeros(model.model.config.hidden_size, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    state["delta"] = delta
    for _ in range(steps):
        loss = config.weight_decay * (delta**2).sum().add(1e-300).sqrt() / reference**2
        for prefix, at in zip(PREFIXES, places, strict=True):
            ids, found = likely(f"{prefix}{row.text} {row.target}", at)
            start = len(ids) - len(target)
            assert ids[start:].tolist() == target
            nll = -sum(found[start - 1 + j, token] for j, token in enumerate(target))
            loss = loss + nll / len(target) / len(PREFIXES)
        after = likely(f"{row.subject} is a", last(row.subject))[1][last(row.subject)]
        loss = loss + config.kl_factor * (after.exp() * (after - before)).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            length = float(delta.norm())
            if length > config.clamp_factor * reference:
                delta.mul_(config.clamp_factor * reference / length)
    hook.remove()
    return delta.detach().numpy()


@pytest.mark.parametrize("reference", ["median", "bare"])
def test_all_states_at_once_are_those_that_plain_descent_finds_one_by_one(reference, tiny):
    tiny.model.double()
    block = tiny.layout.at("block", 1)
    settings = {"learning_rate": 0.1, "clamp_factor": 0.6, "reference": reference}
    config = MemitConfig(steps=7, stop_loss=0, **settings)
    wishes = [Wish(row.subject, [place_all(tiny, row, PREFIXES)]) for row in ROWS]
    with at_rest(tiny.model):
        found = optimise(tiny, block, wishes, config, Silent())
        for number, row in enumerate(ROWS):
            expected = plain_delta(tiny, row, block, config, steps=6)
            assert np.abs(found.deltas[number].numpy() - expected).max() < 1e-4
    assert found.steps == [6, 6, 6]


def test_a_row_that_is_done_stays_as_it_is_while_the_others_go_on(tiny):
    block = tiny.layout.at("block", 1)
    wishes = [Wish(row.subject, [place_all(tiny, row, PREFIXES)]) for row in ROWS]
    with at_rest(tiny.model):
        first = optimise(tiny, block, wishes, MemitConfig(steps=2), Silent()).losses
        config = MemitConfig(stop_loss=sorted(first)[1], steps=6)
        whole = optimise(tiny, block, wishes, config, Silent())
        alone = [optimise(tiny, block, [wish], config, Silent()) for wish in wishes]
    assert len(set(whole.steps)) > 1
    for number, one in enumerate(alone):
        assert one.steps == [whole.steps[number]]
        assert torch.allclose(whole.deltas[number], one.deltas[0], atol=1e-4)


def test_the_loss_of_rows_about_one_subject_is_the_sum_of_theirs(tiny):
    block = tiny.layout.at("block", 1)
    config = MemitConfig(steps=1, kl_factor=0, weight_decay=0)
    other = hubedit.FactEdit(prompt="{} lives in", subject="Ada Brook", target="Riga")
    one, two = ([place_all(tiny, row, PREFIXES)] for row in (ROWS[0], other))
    with at_rest(tiny.model):
        wishes = [Wish("Ada Brook", contexts) for contexts in (one, two, [*one, *two])]
        first, second, both = optimise(tiny, block, wishes, config, Silent()).losses
    assert both == pytest.approx(first + second, rel=1e-5)


@pytest.mark.parametrize("residual", ["averaged", "bare"])
def test_each_layer_adds_its_share_of_what_is_left(tiny, make_run, residual):
    """The whole edit again in NumPy from the papers' equations 14, 20 and 21."""
    config = MemitConfig(layers=(0, 1), residual=residual, steps=4, absolute_weight=5.0, ridge=1e-2)
    run = make_run()
    Memit().apply(tiny, ROWS, config, run)
    made = {
        name: sum(update.left.astype(np.float64) @ update.right for update in updates)
        for name, updates in tiny.changes().items()
    }
    tiny.restore()

    prefixes, block = run.records["prefixes"], tiny.layout.at("block", 1)
    contexts = [place_all(tiny, row, prefixes) for row in ROWS]
    own = [[p for p in range(len(c)) if c[p].subject > 0] for c in contexts]

    def mean(row, of):
        chosen = own[ROWS.index(row)]
        each = [at_subject(tiny, row, prefixes[i], of)[0 if of != block else 1] for i in chosen]
        if of == block and residual == "bare":
            return each[0]
        if chosen[0] == 0:
            return 0.5 * each[0] + 0.5 * np.mean(each[1:], axis=0)
        return np.mean(each, axis=0)

    with at_rest(tiny.model):
        used = [[c[i] for i in chosen][:6] for c, chosen in zip(contexts, own, strict=True)]
        wishes = [Wish(row.subject, [texts]) for row, texts in zip(ROWS, used, strict=True)]
        deltas = optimise(tiny, block, wishes, config, Silent()).deltas.double().numpy().T
        begin = np.stack([mean(row, block) for row in ROWS], axis=1)
        names = [tiny.layout.at("mlp_out", layer) for layer in (0, 1)]
        statistics = []
        for name in names:
            held = [passed(tiny, text, name)[0][1:] for text in counted(run)]
            c = sum(k.T @ k for k in held) / sum(map(len, held))
            statistics.append(c + 1e-2 * np.trace(c) / len(c) * np.eye(len(c)))
        for index, (name, c) in enumerate(zip(names, statistics, strict=True)):
            keys = np.stack([mean(row, name) for row in ROWS], axis=1)
            states = np.stack([mean(row, block) for row in ROWS], axis=1)
            share = (begin + deltas - states) / (2 - index)
            delta = share @ keys.T @ np.linalg.inv(5.0 * c + keys @ keys.T)
            error = np.abs(made[f"{name}.weight"].T - delta).max()
            assert error < 1e-4 * np.abs(delta).max()
            with torch.no_grad():
                tiny.weight(f"{name}.weight").add_(torch.from_numpy(delta.T).float())


@pytest.mark.parametrize("method", ["memit", "emmet", "alphaedit"])
def test_the_factors_of_every_layer_are_the_papers_in_float64(method, tiny):
    """The closed forms of a whole edit in NumPy, layer by layer: keys, states, shares, factors."""
    tiny.model.double()
    generator = np.random.default_rng(7)
    block = tiny.layout.at("block", 1)
    placed = [place_all(tiny, row, PREFIXES) for row in ROWS]
    groups = [weigh(own[:1], own[1:], 0.5, True) for own in placed]

    def mean(row, module, side):
        each = [at_subject(tiny, row, prefix, module)[side] for prefix in PREFIXES]
        return 0.5 * each[0] + 0.25 * (each[1] + each[2])

    deltas = generator.normal(size=(32, len(ROWS)))
    begin = np.stack([mean(row, block, 1) for row in ROWS], axis=1)
    first = read(tiny, Site.find(tiny, 0), block, groups)[1]
    for index in (0, 1):
        site = Site.find(tiny, index)
        width = tiny.weight(site.weight).shape[0]
        noise = generator.normal(size=(width, 2 * width)) * np.linspace(0.05, 2, width)[:, None]
        c = noise @ noise.T / (2 * width)
        before = generator.normal(size=(width, 2))
        layer = Layer(site, PREPARED[method](torch.from_numpy(c)))
        layer.before = {
            "one": torch.from_numpy(before[:, 0]),
            "two": torch.from_numpy(before[:, 1]),
        }
        keys, states = read(tiny, site, block, groups)
        left_over = first + torch.from_numpy(deltas) - states
        left, right = layer.factors(keys, left_over / (2 - index))

        own = np.stack([mean(row, site.mlp_out, 0) for row in ROWS], axis=1)
        now = np.stack([mean(row, block, 1) for row in ROWS], axis=1)
        answering = CLOSED[method](c, own, before)
        expected = (begin + deltas - now) / (2 - index) @ answering.T
        assert left.shape == (32, len(ROWS))
        assert np.abs((left @ right).numpy() - expected).max() < 1e-9
        with torch.no_grad():
            tiny.weight(site.weight).add_(torch.from_numpy(expected.T))


PREPARED = {
    "memit": solvers.of_memit(MemitConfig(absolute_weight=5.0, ridge=0)),
    "emmet": solvers.of_emmet(EmmetConfig(absolute_epsilon=0.1, ridge=0)),
    "alphaedit": solvers.of_alphaedit(AlphaEditConfig(absolute_nullspace=0.5, absolute_l2=10)),
}


def _alphaedit(c, keys, before):
    values, vectors = np.linalg.eigh(c)
    p = vectors[:, values < 0.5] @ vectors[:, values < 0.5].T
    whole = p @ (before @ before.T + keys @ keys.T) + 10 * np.eye(len(c))
    return np.linalg.inv(whole) @ p @ keys


def _emmet(c, keys, before):
    solved = np.linalg.inv(c + before @ before.T) @ keys
    return solved @ np.linalg.inv(keys.T @ solved + 0.1 * np.eye(keys.shape[1]))


CLOSED = {
    "memit": lambda c, keys, before: (
        np.linalg.inv(5 * c + before @ before.T + keys @ keys.T) @ keys
    ),
    "emmet": _emmet,
    "alphaedit": _alphaedit,
}
"""A [in, n] from C, the keys and those before them, by the papers' equations as they stand."""


def counted(run):
    texts = run.corpus.texts
    stride = max(-(-len(texts) // 32), 2)
    return [text for number, text in enumerate(texts) if number % stride]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_without_slack_the_states_become_what_was_optimised_for(family, make_model, make_run):
    """One layer written with equality moves every mean state by δ, in every family's layout."""
    model, run = make_model(family), make_run()
    site, config = Site.find(model, 1), EmmetConfig(steps=4, absolute_epsilon=0, layers=(1,))
    with at_rest(model.model):
        prefixes = sample_prefixes(model, config.prefixes, config.prefix_top_k, run, ROWS)
        placed = [with_something_before(place_all(model, row, prefixes)) for row in ROWS]
        assert [len(own) for own in placed] == [len(prefixes)] * len(ROWS)
        groups = [weigh(own[:1], own[1:], 0.5, True) for own in placed]
        wishes = [Wish(row.subject, [own]) for row, own in zip(ROWS, placed, strict=True)]
        deltas = optimise(model, site.block, wishes, config, Silent()).deltas.double()
        _, before = read(model, site, site.block, groups)
    Emmet().apply(model, ROWS, config, make_run())
    with at_rest(model.model):
        _, after = read(model, site, site.block, groups)
    assert float((after - before - deltas.T).abs().max()) < 1e-3 * float(deltas.abs().max())
