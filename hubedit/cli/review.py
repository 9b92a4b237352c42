"""`hubedit review`: a proposed edit is checked before it is merged."""

from __future__ import annotations

from pathlib import Path

import click

from hubedit.cli.options import (
    base_option,
    html_option,
    hub_opener,
    json_option,
    local_option,
    print_json,
    write_page,
)


@click.command("review", epilog="Example: hubedit review me/facts-gpt2-edited --pr 1 --comment")
@click.argument("repo")
@click.option("--pr", "number", required=True, type=click.IntRange(min=1), help="Its number.")
@click.option(
    "--probes",
    "own",
    type=click.Path(path_type=Path),
    help="Your own questions: .jsonl with prompt and, if known, target.",
)
@click.option("--no-probes", is_flag=True, help="Check bytes and records alone; needs no torch.")
@click.option(
    "--request",
    multiple=True,
    metavar="[PART=]SOURCE",
    help="Rows of an undisclosed edit: a file or hf://datasets/…, or one for each part.",
)
@click.option("--key", type=click.Path(path_type=Path), help="Key file of an undisclosed edit.")
@click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What is allowed; by default hubedit-policy.yaml, if it is here.",
)
@click.option("--comment", is_flag=True, help="Post the verdict to the pull request.")
@html_option
@click.option("--serve", is_flag=True, help="Show the report on 127.0.0.1 until Ctrl-C.")
@base_option
@local_option
@json_option
def command(
    repo: str,
    number: int,
    own: Path | None,
    no_probes: bool,
    request: tuple[str, ...],
    key: Path | None,
    policy: Path | None,
    comment: bool,
    html: Path | None,
    serve: bool,
    base: str | None,
    local: bool,
    as_json: bool,
) -> None:
    """Recompute the bytes of pull request --pr of REPO, ask its questions again, give a verdict."""
    from hubedit.errors import RequestError
    from hubedit.policy import POLICY_FILE, read_policy
    from hubedit.recipe import parse_request
    from hubedit.requests import read_records, rows_of
    from hubedit.reviewing import review
    from hubedit.rows import ProbePrompt, Question
    from hubedit.verdicts import COMMENT_BEGINS

    if bool(request) != (key is not None):
        raise RequestError("--request and --key go together: the rows and the key that names them")
    asked = []
    if own is not None:
        rows = rows_of(ProbePrompt, read_records(own), str(own))
        asked = [
            Question(row=line, group="attribute", prompt=row.prompt, target=row.target)
            for line, row in enumerate(rows, start=1)
        ]
    if policy is None and Path(POLICY_FILE).is_file():
        policy = Path(POLICY_FILE)
    allowed = None if policy is None else read_policy(policy)
    hub = hub_opener(local)()
    found = review(
        repo,
        number,
        hub,
        base=base,
        own=asked,
        request=parse_request(request),
        key=key,
        ask=not no_probes,
        policy=allowed,
    )
    if comment:
        hub.comment(repo, number, found.markdown(), instead_of=COMMENT_BEGINS)
    if as_json:
        print_json(found.as_json())
    else:
        _say(found)
    if html is not None or serve:
        from hubedit.report import of_review, render

        page = render(of_review(found))
        if html is not None:
            write_page(html, page)
        if serve:
            _serve(page)
    if found.verdict != "verified":
        raise click.exceptions.Exit(1)


def _serve(page: str) -> None:
    from threading import Event

    from hubedit.report.serving import served

    with served(page) as address:
        click.echo(f"the report is at {address} until Ctrl-C", err=True)
        try:
            Event().wait()
        except KeyboardInterrupt:
            click.echo(err=True)


def _say(found: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from hubedit.verdicts import Review

    assert isinstance(found, Review)
    console = Console(markup=False, highlight=False)
    colour = {"verified": "green", "verified with differences": "yellow"}.get(found.verdict, "red")
    console.print(f"{found.what}: {found.headline}", style=f"bold {colour}", soft_wrap=True)
    for sign, items in (
        ("broken", found.broken),
        ("against the policy", found.forbidden),
        ("differs", found.differences),
        ("not checked", found.unchecked),
        ("checked", found.checked),
    ):
        for item in items:
            console.print(f"  {sign}: {item}", soft_wrap=True)
    if found.own:
        table = Table("your question", "before", "after", box=None, header_style="bold")
        for probe in found.own:
            table.add_row(str(probe.prompt), str(probe.before.answer), str(probe.after.answer))
        console.print(table)
    console.print(f"result {found.result}", style="dim", soft_wrap=True)
