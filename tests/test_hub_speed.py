"""The benchmark of the Hub runs and measures what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "hub_speed.py"


def test_the_benchmark_measures_every_ratio(tmp_path: Path) -> None:
    sizes = ["--gigabytes", "0.002", "--small", "10", "--commits", "20", "--files", "100"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *sizes, "--repeat", "2", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("large", "small"):
        assert found[name]["upload_ratio"] > 0
        assert found[name]["download_ratio"] > 0
    assert found["commit"]["commit_ratio"] > 0
