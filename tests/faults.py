"""Commands that are cut off at random moments, and what must hold afterwards."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TRIES = int(os.environ.get("HUBEDIT_FAULT_TRIES", "30"))


def command(*arguments: object) -> list[str]:
    """A hubedit command line in a process of its own."""
    return [sys.executable, "-m", "hubedit", *map(str, arguments)]


def seconds(arguments: Sequence[str]) -> float:
    """How long a command takes that is left alone."""
    start = time.monotonic()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.monotonic() - start


def cut_off(
    make: Callable[[int], Sequence[str]],
    check: Callable[[int, int, str], None],
    duration: float,
    *,
    tries: int = TRIES,
    how: signal.Signals = signal.SIGINT,
    seed: int = 0,
) -> int:
    """Run a command again and again, each time stopping it at another moment.

    Args:
        make: the command of a try.
        check: told the try, the exit status and what was said on stderr.
        duration: seconds the command takes; moments are drawn from the whole of it.
        tries: how often.
        how: the signal.
        seed: of the moments.

    Returns:
        How many tries were in fact cut off.
    """
    draw = random.Random(seed)
    stopped = 0
    for number in range(tries):
        process = subprocess.Popen(
            make(number), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            _, said = process.communicate(timeout=draw.uniform(0.05, 1.05) * duration)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            stopped += 1
            _, said = process.communicate(timeout=60)
        check(number, process.returncode, said)
    return stopped


def with_small_files(arguments: Sequence[str], most: int) -> subprocess.CompletedProcess[str]:
    """Run a command for which the system refuses files of more than `most` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return subprocess.run(arguments, capture_output=True, text=True, check=False, preexec_fn=limit)


def leftovers(directory: Path) -> list[str]:
    """Names of unfinished work in a directory."""
    return sorted(
        path.name for path in directory.iterdir() if path.name.endswith((".partial", ".old"))
    )
