"""`hubedit doctor`: what is in order here, and whether a model can be edited."""

from __future__ import annotations

import click

from hubedit.cli.options import base_option, hub_opener, json_option, local_option, print_json

_MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@click.command("doctor", epilog="Example: hubedit doctor openai-community/gpt2")
@click.argument("model", required=False, metavar="[REPO[@REV]|DIR]")
@base_option
@local_option
@json_option
def command(model: str | None, base: str | None, local: bool, as_json: bool) -> int:
    """Check this installation; or say whether a model can be edited, and if not, why.

    Reads no weights. The exit status is 1 if something is bad.
    """
    from hubedit.checkup import check_installation, check_model
    from hubedit.plugins import load_plugins

    plugins, hub = load_plugins(), hub_opener(local)
    if model is None:
        found = check_installation(hub, plugins)
    else:
        found = check_model(model, hub, plugins, base)
    if as_json:
        print_json(found.as_json())
    else:
        width = max(len(finding.name) for finding in found.findings)
        for finding in found.findings:
            click.echo(f"{_MARKS[finding.state]}  {finding.name:<{width}}  {finding.detail}")
        if model is not None:
            how = f"can be edited by {', '.join(found.methods or ())}"
            click.echo(f"{model} {how if found.healthy else 'cannot be edited as it is'}")
    return 0 if found.healthy else 1
