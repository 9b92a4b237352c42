"""Cells of several models at once, each model in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from hubedit.benching.matrix import Matrix, bench
from hubedit.context import Silent, Talk

_ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def bench_in_parallel(
    methods: Sequence[str],
    models: Sequence[str],
    edits: Sequence[int],
    *,
    output: Path,
    workers: int,
    talk: Talk | None = None,
    done: Any = None,
    **given: Any,
) -> Matrix:
    """Like `bench` on one thread, with as many models at a time as there are workers.

    The workers fill the directory with cells; the result is then put together from them, and is the
    same as that of one process but for the seconds.

    Args:
        workers: processes at a time.
        given: what else `bench` takes that a process can be handed.
    """
    talk = talk or Silent()
    shared = {"output": output, **given, "threads": 1}
    before = {name: os.environ.get(name) for name in _ONE}
    os.environ.update(_ONE)  # read by the processes that are started now
    try:
        context = multiprocessing.get_context("spawn")
        with (
            ProcessPoolExecutor(workers, mp_context=context) as pool,
            talk.progress("models", total=len(models)) as bar,
        ):
            jobs = {
                pool.submit(_one, list(methods), name, list(edits), shared): name for name in models
            }
            for job in as_completed(jobs):
                talk.log(f"{jobs[job]}: {job.result()} cells")
                bar.advance()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    shared["fresh"] = False
    return bench(methods, models, edits, talk=talk, done=done, **shared)


def _one(methods: list[str], model: str, edits: list[int], shared: dict[str, Any]) -> int:
    return len(bench(methods, [model], edits, **shared).cells)
