"""`hubedit hub`: a Hub on this machine for `hf`, transformers and hubedit itself."""

from __future__ import annotations

import json
from pathlib import Path

import click

_root = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything lies; `hub` below hubedit's own directory if not given.",
)


@click.group()
def hub() -> None:
    """Run a small Hub on this machine."""


def _chosen(root: Path | None) -> Path:
    from hubedit_localhub.background import default_root

    return (root or default_root()).absolute()


@hub.command()
@_root
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one.")
def serve(root: Path | None, port: int) -> None:
    """Serve in the foreground until Ctrl-C."""
    from hubedit import HubError
    from hubedit_localhub.background import LocalHubInfo, run_here, running

    place = _chosen(root)

    def ready(info: LocalHubInfo) -> None:
        option = f" --root {place}" if root else ""
        click.echo(info.url)
        click.echo(f'eval "$(hubedit hub env{option})"', err=True)

    try:
        served = run_here(place, port, 0, ready)
    except OSError as error:
        raise HubError(
            f"no Hub on port {port}: {error.strerror or error}; choose another --port"
        ) from None
    if not served:
        found = running(place)
        raise HubError(
            f"{place} is served already{f' at {found.url}' if found else ''}; use that one, or "
            "stop it with `hubedit hub stop`"
        )


@hub.command()
@_root
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of shell lines.")
def env(root: Path | None, as_json: bool) -> None:
    """Print the exports that make `hf` and transformers use this Hub; start it if need be."""
    from hubedit_localhub.background import connect, environment, exports

    info = connect(_chosen(root))
    variables = environment(info.url, info.token, info.home)
    click.echo(json.dumps(variables, indent=1) if as_json else exports(variables), nl=as_json)


@hub.command()
@_root
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(root: Path | None, as_json: bool) -> None:
    """Say whether it runs, where, and what it holds."""
    from hubedit_localhub.background import running

    place = _chosen(root)
    info = running(place)
    counts = {kind: len(list((place / kind).glob("*/*.git"))) for kind in ("models", "datasets")}
    if as_json:
        found = {"url": info.url, "pid": info.pid, "user": info.user} if info else {}
        click.echo(
            json.dumps(
                {"running": info is not None, "root": str(place), **found, **counts}, indent=1
            )
        )
        return
    click.echo(f"{info.url} (process {info.pid})" if info else "not running")
    click.echo(f"{place}: {counts['models']} models, {counts['datasets']} datasets")


@hub.command()
@_root
def stop(root: Path | None) -> None:
    """Stop the server; what it holds stays."""
    from hubedit_localhub.background import stop as stop_server

    click.echo("stopped" if stop_server(_chosen(root)) else "not running")
