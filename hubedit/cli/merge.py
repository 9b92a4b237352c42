"""`hubedit merge`: a reviewed pull request becomes the next version."""

from __future__ import annotations

import click

from hubedit.cli.options import dry_run_option, hub_opener, json_option, local_option, print_json


@click.command("merge", epilog="Example: hubedit merge me/facts-gpt2-edited 1")
@click.argument("repo")
@click.argument("number", metavar="PR", type=click.IntRange(min=1))
@local_option
@dry_run_option
@json_option
def command(repo: str, number: int, local: bool, dry_run: bool, as_json: bool) -> None:
    """Merge pull request PR of REPO and tag it with the height of the stack: v1, v2, …"""
    from hubedit.publishing import merge

    commit, tag = merge(repo, number, hub_opener(local)(), check_only=dry_run)
    if as_json:
        print_json({"repo": repo, "commit": commit, "tag": tag, "merged": not dry_run})
    elif dry_run:
        click.echo(f"would merge pull request {number} of {repo} as {tag} on top of {commit}")
    else:
        click.echo(f"merged as {tag}: {repo}@{commit}")
