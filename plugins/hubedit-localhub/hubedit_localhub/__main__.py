"""`python -m hubedit_localhub`: the background server of one root."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from hubedit_localhub.background import run_here


@click.command()
@click.option(
    "--root", type=click.Path(path_type=Path), required=True, help="Where everything lies."
)
@click.option("--port", type=int, default=0, help="The port on 127.0.0.1; 0 takes a free one.")
@click.option("--idle", type=float, default=0, help="Seconds without a request after which to end.")
def main(root: Path, port: int, idle: float) -> None:
    """Serve one root unless another process does."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    run_here(root, port, idle)


if __name__ == "__main__":
    main()
