"""The attribution map that a run shows: layers by neurons, the strongest of each bin."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import hubedit

BINS = 32
LAYERS = 64
_WHERE = {"answer": "where the answer is predicted", "subject": "at the subject's last token"}


def show(run: hubedit.RunContext, means: Sequence[torch.Tensor], position: str) -> None:
    """Show attributions [layers, neurons] of every fact in one map; it holds no words of a row."""
    relative = [(mean / mean.max()).clamp_min(0) for mean in means]
    strongest = torch.stack(relative).max(0).values
    layers = _bins(strongest.shape[0], LAYERS)
    columns = _bins(strongest.shape[1], BINS)
    run.figure(
        "attribution",
        [
            [
                float(strongest[rows.start : rows.stop, own.start : own.stop].max())
                for own in columns
            ]
            for rows in layers
        ],
        rows=[f"layer {_said(rows)}" for rows in layers],
        columns=[_said(own) for own in columns],
        caption=(
            f"Attribution of the known answers to the neurons of each layer, {_WHERE[position]}: "
            "the strongest neuron of each bin of indices, over all rows, where the strongest of "
            "each row is 1."
        ),
    )


def _bins(count: int, most: int) -> list[range]:
    """At most so many bins of nearly equal size."""
    wide = -(-count // most)
    return [range(start, min(start + wide, count)) for start in range(0, count, wide)]


def _said(members: range) -> str:
    last = members.stop - 1
    return str(members.start) if len(members) == 1 else f"{members.start}–{last}"
