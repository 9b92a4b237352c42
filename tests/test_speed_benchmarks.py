"""The benchmarks of edits and of unlearning run, in the smallest form they have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def printed(tmp_path: Path, name: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_of_unlearning_is_measured_beside_a_plain_loop(tmp_path: Path) -> None:
    few = ["--shape", "tiny", "--steps", "1", "--rows", "4", "--batch", "2", "--json"]
    found = json.loads(printed(tmp_path, "unlearn_speed.py", *few))
    loops = ("plain loop", "all weights", "blocks", "lora")
    assert set(found) == {f"{name}, retain={how}" for name in loops for how in ("none", "nll")}
    assert all(row["faster"] > 0 and row["memory"] > 0 for row in found.values())


def test_edits_are_measured_beside_the_published_loop_and_find_the_same(tmp_path: Path) -> None:
    few = ["--shape", "tiny", "--steps", "2", "--plain", "1", "--many", "2", "--only", "memit"]
    said = printed(tmp_path, "edit_speed.py", *few)
    [line] = [line for line in said.splitlines() if line.startswith("memit: values differ")]
    assert float(line.split(" by ")[1].split()[0]) < 1e-4
