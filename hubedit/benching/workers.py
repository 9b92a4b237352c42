"""Cells of a bench at once, in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from hubedit.benching.forgetting import bench_forgetting, named_requests
from hubedit.benching.forgotten import ForgottenMatrix
from hubedit.benching.matrix import Matrix, bench
from hubedit.context import Silent, Talk
from hubedit.hub import Hub
from hubedit.plugins import load_plugins

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
    jobs = {name: (list(methods), name, list(edits), shared) for name in models}
    _spread(workers, _one, jobs, "models", talk)
    shared["fresh"] = False
    return bench(methods, models, edits, talk=talk, done=done, **shared)


def bench_forgetting_in_parallel(
    methods: Sequence[str],
    models: Sequence[str],
    *,
    output: Path,
    workers: int,
    talk: Talk | None = None,
    done: Any = None,
    **given: Any,
) -> ForgottenMatrix:
    """Like `bench_forgetting` on one thread: the cells of each request are shared by the workers.

    Args:
        workers: processes at a time.
        given: what else `bench_forgetting` takes that a process can be handed.
    """
    talk = talk or Silent()
    shared = {"output": output, **given, "threads": 1}
    found = named_requests(
        models, given["split"], given["forget"], given["oracle"], load_plugins(), Hub
    )
    jobs = {
        f"{model.name}, {request.name}, share {number + 1} of {workers}": (
            list(methods),
            model.name,
            {**shared, "requests": [request.name], "share": (number, workers)},
        )
        for model, request in found
        for number in range(workers)
    }
    _spread(workers, _forgetting, jobs, "shares", talk)
    shared["fresh"] = False
    return bench_forgetting(methods, models, talk=talk, done=done, **shared)


def _spread(
    workers: int,
    work: Callable[..., int],
    jobs: Mapping[str, tuple[Any, ...]],
    label: str,
    talk: Talk,
) -> None:
    """Do all jobs, so many at a time, each given its arguments."""
    before = {name: os.environ.get(name) for name in _ONE}
    os.environ.update(_ONE)  # read by the processes that are started now
    try:
        context = multiprocessing.get_context("spawn")
        with (
            ProcessPoolExecutor(workers, mp_context=context) as pool,
            talk.progress(label, total=len(jobs)) as bar,
        ):
            started = {pool.submit(work, *given): name for name, given in jobs.items()}
            for job in as_completed(started):
                talk.log(f"{started[job]}: {job.result()} cells")
                bar.advance()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _one(methods: list[str], model: str, edits: list[int], shared: dict[str, Any]) -> int:
    return len(bench(methods, [model], edits, **shared).cells)


def _forgetting(methods: list[str], model: str, shared: dict[str, Any]) -> int:
    return len(bench_forgetting(methods, [model], **shared).cells)
