"""How long `hubedit plugins` takes with 30 plugins installed beside one, from a warm cache.

Each is a distribution of its own, as pip leaves it, with one method. No plugin is imported: that is
what the cache is for. Medians of whole processes, taken in turn.

    python benchmarks/listing.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = '''"""A plugin."""

import hubedit


class Settings(hubedit.Config):
    """Nothing to set."""


class Method(hubedit.Method[hubedit.FactEdit, Settings]):
    """Do nothing."""

    name = "method-{number}"
    kind = "edit"
    architectures = {{"causal"}}

    def apply(self, model, rows, config, run):
        """Do nothing."""


@hubedit.hookimpl
def hubedit_methods():
    return [Method]
'''
COUNTS, RUNS = (1, 30), 15


def install(site: Path, count: int) -> None:
    """Put `count` distributions into a directory, as pip would."""
    for number in range(count):
        package = site / f"listed_{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(PLUGIN.format(number=number), encoding="utf-8")
        info = site / f"listed_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: listed-{number}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[hubedit]\nlisted-{number} = listed_{number}\n")


def listing(home: Path) -> float:
    """Seconds that one listing takes."""
    names = "demo,ft,localhub,memit,rome,unlearn"
    environment = {
        **os.environ,
        "PYTHONPATH": str(home / "site"),
        "HUBEDIT_HOME": str(home / "kept"),
        "HUBEDIT_DISABLE_PLUGINS": names,
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "hubedit", "plugins", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    wanted = len(list((home / "site").glob("*.dist-info")))
    assert done.stdout.count('"listed-') >= wanted, done.stdout
    return seconds


def main() -> None:
    """Print one line for each number of plugins, and the ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        homes = {count: Path(scratch, str(count)) for count in COUNTS}
        for count, home in homes.items():
            install(home / "site", count)
        cold = {count: listing(home) for count, home in homes.items()}
        times: dict[int, list[float]] = {count: [] for count in COUNTS}
        for _ in range(RUNS):
            for count, home in homes.items():
                times[count].append(listing(home))
    warm = {count: statistics.median(taken) for count, taken in times.items()}
    for count in COUNTS:
        print(f"{count:>3} plugins  cold {cold[count]:6.2f} s  warm {warm[count]:6.3f} s")
    few, many = COUNTS
    print(f"ratio {warm[many] / warm[few]:.2f} (at most 1.5)")


if __name__ == "__main__":
    main()
