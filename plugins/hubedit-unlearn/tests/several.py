"""Runs of hubedit, one after another in one process, as a launcher starts it on every rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

from hubedit.cli import run


def runs(jobs: list[dict[str, object]]) -> None:
    """Do jobs of `arguments`; one with `until` is interrupted when it looks at that step."""
    from hubedit_unlearn.watch import Watch

    look = Watch.look
    for job in jobs:
        until = job.get("until")

        def interrupted(watch: Watch, step: int, until: object = until) -> bool:
            if step == until:
                raise KeyboardInterrupt
            return look(watch, step)

        with patch.object(Watch, "look", interrupted):
            status = run(list(job["arguments"]))
        assert status == (0 if until is None else 1), job


if __name__ == "__main__":
    runs(json.loads(Path(sys.argv[1]).read_text()))
