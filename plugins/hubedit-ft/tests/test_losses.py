"""The losses against NumPy, one text at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubedit_ft.texts import batches, placed

import hubedit

ROWS = [
    hubedit.FactEdit(prompt="{} plays the", subject="Ada Brook", target="red oboe"),
    hubedit.FactEdit(prompt="At noon {} lives in", subject="Tom Adler", target="Ghent"),
    hubedit.FactEdit(prompt="The mother tongue of {} is", subject="Nils Okafor", target="Danish"),
]


def likely(model, text):
    """Log-probabilities [tokens, vocabulary] of one text alone, in float64."""
    with torch.no_grad():
        logits = model.model(torch.tensor([model.tokenizer(text)["input_ids"]])).logits[0]
    logits = logits.double().numpy()
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("at_end", [False, True])
def test_a_rows_loss_is_the_mean_over_its_target_and_nothing_else(tiny, at_end):
    tiny.model.double()
    [batch] = batches(tiny, placed(tiny, ROWS), 8, at_end)
    found = batch.losses(tiny).detach().numpy()
    for row, loss in zip(ROWS, found, strict=True):
        target = tiny.tokenizer(" " + row.target)["input_ids"]
        seen = likely(tiny, f"{row.text} {row.target}")
        start = len(seen) - len(target)
        at = [start - 1 if at_end else start - 1 + j for j in range(len(target))]
        expected = -np.mean([seen[p, token] for p, token in zip(at, target, strict=True)])
        assert loss == pytest.approx(expected, abs=1e-5)


def test_rows_come_in_their_order_and_in_batches(tiny):
    contexts = placed(tiny, ROWS)
    parts = batches(tiny, contexts, 2, at_end=False)
    assert [len(part.read.lookup) for part in parts] == [2, 1]
    together = batches(tiny, contexts, 3, at_end=False)[0].losses(tiny)
    assert torch.allclose(torch.cat([part.losses(tiny) for part in parts]), together, atol=1e-5)


def test_padding_does_not_change_a_loss(tiny):
    contexts = placed(tiny, ROWS)
    alone = [batches(tiny, [one], 1, at_end=False)[0].losses(tiny) for one in contexts]
    together = batches(tiny, contexts, 3, at_end=False)[0].losses(tiny)
    assert torch.allclose(torch.cat(alone), together, atol=1e-5)
