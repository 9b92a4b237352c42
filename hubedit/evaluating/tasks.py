"""Tasks of lm-evaluation-harness, run on the model before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.errors import ConfigError, HubEditError
from hubedit.manifest import Record

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

HARNESS = "lm_eval"


class TaskScore(Record):
    """One metric of one task, for one model."""

    task: str
    metric: str
    value: float


def check_harness(tasks: Sequence[str]) -> None:
    """Refuse to go on without lm-evaluation-harness, or without a file that a task is named by.

    Raises:
        ConfigError: it is not installed; says how to install it. A file is not there, or names no
            task.
    """
    if util.find_spec(HARNESS) is None:
        raise ConfigError(
            "--tasks needs lm-evaluation-harness, which is not installed; install it with "
            "`pip install 'hubedit[tasks]'`"
        )
    _named(tasks)


def run_tasks(model: LoadedModel, tasks: Sequence[str], limit: int | None) -> list[TaskScore]:
    """Run tasks on a causal or seq2seq model as it is in memory.

    Args:
        tasks: names of the harness, or YAML files that name a task of their own.
        limit: examples of each, at most.

    Raises:
        HubEditError: the harness failed, in its own words.
    """
    check_harness(tasks)
    kind = model.layout.architecture
    if kind == "masked":
        raise ConfigError("lm-evaluation-harness runs no masked models; leave --tasks out")
    names, folders = _named(tasks)
    harness: Any = import_module(f"{HARNESS}.evaluator")
    wrapping: Any = import_module(f"{HARNESS}.models.huggingface")
    managing: Any = import_module(f"{HARNESS}.tasks")
    try:
        wrapped = wrapping.HFLM(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            backend=kind,
            device=str(model.device),
        )
        found = harness.simple_evaluate(
            model=wrapped,
            tasks=names,
            limit=limit,
            task_manager=managing.TaskManager(include_path=folders or None),
            bootstrap_iters=0,
        )
    except Exception as error:  # whatever the harness raises is told in one line
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise HubEditError(f"lm-evaluation-harness failed: {said}") from error
    return [
        TaskScore(task=task, metric=name.partition(",")[0], value=float(value))
        for task, figures in sorted(found["results"].items())
        for name, value in sorted(figures.items())
        if isinstance(value, int | float) and "," in name and "stderr" not in name
    ]


def _named(tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of tasks, and the folders of those that files define."""
    names, folders = [], []
    for text in tasks:
        path = Path(text)
        if path.suffix not in (".yaml", ".yml"):
            names.append(text)
            continue
        if not path.is_file():
            raise ConfigError(f"there is no file {path} that names a task; --tasks takes names too")
        found = re.search(r"^task:\s*(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise ConfigError(f"{path} names no task; write `task: NAME` in it")
        names.append(found.group(1).strip("'\""))
        folders.append(str(path.absolute().parent))
    return names, list(dict.fromkeys(folders))
