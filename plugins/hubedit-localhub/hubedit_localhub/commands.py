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
EXPOSED = (
    "It listens on {host}: everyone who reaches this machine reaches it. Public repositories are "
    "read without a token, and nothing is encrypted: tokens and weights can be read on the way. "
    "Put a proxy with TLS before it, or leave --host out."
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
@click.option("--host", default="127.0.0.1", help="The address to listen on; this machine alone.")
def serve(root: Path | None, port: int, host: str) -> None:
    """Serve in the foreground until Ctrl-C."""
    from hubedit import HubError
    from hubedit_localhub.background import LocalHubInfo, run_here, running
    from hubedit_localhub.server import is_local

    place = _chosen(root)

    def ready(info: LocalHubInfo) -> None:
        option = f" --root {place}" if root else ""
        click.echo(info.url)
        if not is_local(host):
            click.echo(EXPOSED.format(host=host), err=True)
        click.echo(f'eval "$(hubedit hub env{option})"', err=True)

    try:
        served = run_here(place, port, 0, ready, host)
    except OSError as error:
        raise HubError(
            f"no Hub on {host}, port {port}: {error.strerror or error}; choose another --host or "
            "--port"
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


@hub.command()
@_root
@click.argument("user")
@click.option("--read", is_flag=True, help="A token that reads only.")
def token(root: Path | None, user: str, read: bool) -> None:
    """Print a new token of a user, who is added if new; it is shown this once."""
    from hubedit import HubError
    from hubedit_localhub.refusals import Refusal
    from hubedit_localhub.store import Store

    accounts = Store(_chosen(root)).accounts
    try:
        accounts.create_user(user)
    except Refusal as refusal:
        raise HubError(f"{refusal.message}; choose another name") from None
    click.echo(accounts.create_token(user, "read" if read else "write"))


@hub.command()
@_root
@click.argument("repo")
@click.argument("user")
@click.argument("role", type=click.Choice(["read", "write", "none"]))
@click.option("--dataset", is_flag=True, help="The repository is a dataset.")
def grant(root: Path | None, repo: str, user: str, role: str, dataset: bool) -> None:
    """Let a user read or write one repository, or no longer."""
    from hubedit import HubError
    from hubedit_localhub.store import Store

    store = Store(_chosen(root))
    found = store.find("datasets" if dataset else "models", repo)
    if found is None:
        raise HubError(f"{repo} is no repository of {store.root}; `hubedit hub status` counts them")
    if user not in store.accounts.users():
        raise HubError(
            f"{user} is no user of {store.root}; add them with `hubedit hub token {user}`"
        )
    found.change_member(user, None if role == "none" else role)
    click.echo(f"{user}: {role} {found.id}")


@hub.command()
@_root
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def fsck(root: Path | None, as_json: bool) -> None:
    """Prove every reachable object by its hash; the Hub may run meanwhile."""
    from hubedit import HubError
    from hubedit_localhub.proving import prove
    from hubedit_localhub.store import Store

    place = _chosen(root)
    if not (place / "accounts.json").exists():
        raise HubError(f"{place} holds no Hub; name the place with --root")
    found = prove(Store(place))
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        for problem in found.problems:
            click.echo(problem)
        count = len(found.problems)
        click.echo(
            f"{found.repositories} repositories, {found.references} references, "
            f"{found.git_objects} git objects, {found.large_files} large files "
            f"({found.bytes:,} bytes): {count or 'no'} problem{'s' if count != 1 else ''}"
        )
    if found.problems:
        raise SystemExit(1)
