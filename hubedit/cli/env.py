"""`hubedit env`: what a bug report needs to say."""

from __future__ import annotations

import click

from hubedit.cli.options import hub_opener, json_option, local_option, print_json


@click.command("env", epilog="Example: hubedit env --json")
@local_option
@json_option
def command(local: bool, as_json: bool) -> None:
    """Print versions, plugins, endpoint and platform, to paste into a bug report."""
    from hubedit.checkup import environment
    from hubedit.plugins import load_plugins

    found = environment(hub_opener(local)(), load_plugins())
    if as_json:
        print_json(found)
        return
    for key in ("hubedit", "python"):
        click.echo(f"{key}: {found[key]}")
    for name, version in found["libraries"].items():
        click.echo(f"{name}: {version or 'not installed'}")
    click.echo(f"platform: {found['platform']}, {found['cores']} cores")
    click.echo(f"endpoint: {found['endpoint']} (token: {found['token']})")
    for name, value in found["settings"].items():
        click.echo(f"{name}: {value}")
    for name, plugin in found["plugins"].items():
        methods = ", ".join(plugin["methods"]) or "no methods"
        click.echo(f"plugin {name}: {plugin['distribution']}, {methods}")
        for error in plugin["errors"]:
            click.echo(f"  error: {error}")
