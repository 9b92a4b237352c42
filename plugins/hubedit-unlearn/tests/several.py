"""Runs of hubedit, one after another in one process, as a launcher starts it on every rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hubedit.cli import run

if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        assert run(arguments) == 0, arguments
