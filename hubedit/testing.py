"""What authors of plugins test with: the contract of every method, tiny models, drawn updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit import run
from hubedit.bench import FORGET_ROWS, ROW, no_hub, telltale
from hubedit.contract import MethodContract
from hubedit.recipe import make_recipe
from hubedit.tiny import TEXTS, tiny_model
from hubedit.updates import Columns, LowRank, Replace, Rows, Sparse

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from hubedit.updates import Update


def edited(
    base: Path, plugin: str, rows: Sequence[Mapping[str, Any]], output: Path, **config: Any
) -> Path:
    """Make an edit of a local model by an installed plugin, as `hubedit apply` does.

    Args:
        base: directory of the model.
        plugin: name of the method.
        rows: the request.
        output: directory of the edit; must not exist.
        config: settings of the method.

    Returns:
        The directory, for `hubedit.load`.

    Raises:
        HubEditError: the edit cannot be made; nothing is left behind.
    """
    keys = {"base": str(base), "plugin": plugin, "request": list(rows), "config": config}
    job = run.prepare(make_recipe({**keys, "threads": 1}), no_hub)
    return run.apply(job, output).directory


def updates(shape: tuple[int, int], largest: float = 4.0) -> SearchStrategy[Update]:
    """Updates of every kind that fit a float32 weight [m, n], for Hypothesis.

    Args:
        shape: of the weight, m and n at least 1.
        largest: magnitude of the values and factors, at most.

    Returns:
        A strategy of `LowRank` (rank 1 to min(m, n)), `Rows`, `Columns`, `Sparse` and `Replace`.

    Raises:
        ModuleNotFoundError: Hypothesis is not installed (`pip install 'hubedit[test]'`).
    """
    import numpy as np
    from hypothesis import strategies as st

    def values(*shape: int) -> SearchStrategy[Any]:
        size = int(np.prod(shape))
        entry = st.floats(-largest, largest, width=32)
        drawn = st.lists(entry, min_size=size, max_size=size)
        return drawn.map(lambda numbers: np.array(numbers, dtype=np.float32).reshape(shape))

    def places(end: int) -> SearchStrategy[list[int]]:
        return st.lists(st.integers(0, end - 1), min_size=1, max_size=min(end, 8), unique=True)

    rows, columns = shape
    ranks = st.integers(1, min(rows, columns, 4))
    return st.one_of(
        ranks.flatmap(lambda rank: st.builds(LowRank, values(rows, rank), values(rank, columns))),
        places(rows).flatmap(lambda at: st.builds(Rows, st.just(at), values(len(at), columns))),
        places(columns).flatmap(lambda at: st.builds(Columns, st.just(at), values(rows, len(at)))),
        places(rows * columns).flatmap(lambda at: st.builds(Sparse, st.just(at), values(len(at)))),
        st.builds(Replace, values(rows, columns)),
    )


__all__ = [
    "FORGET_ROWS",
    "ROW",
    "TEXTS",
    "MethodContract",
    "edited",
    "telltale",
    "tiny_model",
    "updates",
]
