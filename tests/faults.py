"""Commands that are cut off at random moments, and what must hold afterwards."""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

TRIES = int(os.environ.get("HUBEDIT_FAULT_TRIES", "30"))
HOW = (signal.SIGINT, signal.SIGKILL)
"""How tries are cut off, in turn."""
COLD = 9
"""One try in so many starts an interpreter of its own, so that imports are cut off too."""


def command(*arguments: object) -> list[str]:
    """A hubedit command line in a process of its own."""
    return [sys.executable, "-m", "hubedit", *map(str, arguments)]


def seconds(arguments: Sequence[str]) -> float:
    """How long a command takes that is left alone."""
    start = time.monotonic()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.monotonic() - start


class Warm:
    """A process that has imported what commands import, and forks one process for each.

    It has the environment of its start and has run nothing itself. A command so started differs
    from one of `command` in that its imports cost no time: moments fall into its work.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments: Sequence[object]) -> int:
        """Start `hubedit ARGUMENTS` in the working directory of the caller; its process id."""
        assert self._process.stdin
        asked = {"arguments": [str(word) for word in arguments], "cwd": os.getcwd()}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self, seconds: float = 60.0) -> tuple[int, str] | None:
        """Exit status and stderr of the command that was started last; None if it still runs."""
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        status, said = json.loads(self._line())
        return status, said

    def run(self, arguments: Sequence[object]) -> float:
        """Run a command that must succeed, and import what it imported; how long it took."""
        start = time.monotonic()
        self.start(arguments)
        done = self.wait(300.0)
        assert done is not None, "it does not end"
        status, said = done
        assert status == 0, said
        return time.monotonic() - start

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


@contextmanager
def warm() -> Iterator[Warm]:
    """A `Warm` process while the `with` lasts."""
    started = Warm()
    try:
        yield started
    finally:
        started.close()


def cut_off(
    ready: Warm,
    make: Callable[[int], Sequence[object]],
    check: Callable[[int, int, str], None],
    duration: float,
    *,
    cold: float = 0.0,
    tries: int = TRIES,
    seed: int = 0,
) -> int:
    """Run a command again and again, each time stopping it at another moment.

    Even tries are interrupted, as Ctrl-C does; odd ones are killed, and can clean nothing up.

    Args:
        ready: where it is started.
        make: the arguments of a try.
        check: told the try, the exit status and what was said on stderr.
        duration: seconds the command takes; moments are drawn from the whole of it.
        cold: seconds it takes with an interpreter of its own; 0 for no such tries.
        tries: how often.
        seed: of the moments.

    Returns:
        How many tries were in fact cut off.
    """
    draw = random.Random(seed)
    stopped = 0
    for number in range(tries):
        moment = draw.uniform(0.02, 1.05)
        how = HOW[number % len(HOW)]
        if cold and number % COLD == 0:
            process = subprocess.Popen(
                command(*make(number)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            try:
                _, said = process.communicate(timeout=moment * cold)
            except subprocess.TimeoutExpired:
                process.send_signal(how)
                stopped += 1
                _, said = process.communicate(timeout=60)
            check(number, process.returncode, said)
            continue
        began = time.monotonic()
        identity = ready.start(make(number))
        done = ready.wait(moment * duration)
        if done is not None:
            duration = time.monotonic() - began  # the machine is quicker now than it was
        else:
            with suppress(ProcessLookupError):
                os.kill(identity, how)
            stopped += 1
            done = ready.wait()
        assert done is not None, "it goes on after the signal"
        check(number, *done)
    return stopped


def with_small_files(arguments: Sequence[str], most: int) -> subprocess.CompletedProcess[str]:
    """Run a command for which the system refuses files of more than `most` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return subprocess.run(arguments, capture_output=True, text=True, check=False, preexec_fn=limit)


def leftovers(directory: Path) -> list[str]:
    """Names of unfinished work in a directory."""
    endings = (".partial", ".old")
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(endings))


def _serve() -> None:
    """Fork a process for each line of stdin."""
    scratch = tempfile.mkdtemp()
    said, imported = Path(scratch, "stderr"), Path(scratch, "imported")
    known = set(sys.modules)
    for line in sys.stdin:
        identity = os.fork()
        if identity == 0:
            _command(json.loads(line), said, imported)
        print(identity, flush=True)  # noqa: T201
        _, ended = os.waitpid(identity, 0)
        status = os.waitstatus_to_exitcode(ended)
        if status == 0:
            for name in json.loads(imported.read_text()):
                if name not in known and "hubedit_localhub" not in name:
                    known.add(name)
                    with suppress(Exception):
                        importlib.import_module(name)
        print(json.dumps([status, said.read_text()]), flush=True)  # noqa: T201


def _command(asked: dict[str, Any], said: Path, imported: Path) -> NoReturn:
    """Run one command in this process, whose stderr goes to a file, and end.

    Threads are waited for as ever; taking the modules down afterwards would cost seconds.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.chdir(asked["cwd"])
    from hubedit.cli import run

    status = run(asked["arguments"])
    if status == 0:
        imported.write_text(json.dumps(sorted(sys.modules)))
    sys.stderr.flush()
    threading._shutdown()
    os._exit(status)


if __name__ == "__main__":
    _serve()
