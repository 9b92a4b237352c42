"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from hubedit.hub import Hub

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])

local_option = click.option(
    "--local", is_flag=True, help="Talk to the embedded Hub of this machine."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
html_option = click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report as one HTML file that opens without a network.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be written, and write nothing."
)
base_option = click.option(
    "--base",
    metavar="REPO[@REV]|DIR",
    help="Take the base from here instead of where the edit points.",
)
revision_output_option = click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the revision; needed for a DIR.",
)

no_probes_option = click.option(
    "--no-probes", is_flag=True, help="Do not load the model to ask the edits' questions again."
)
direct_option = click.option(
    "--direct", is_flag=True, help="Commit to main instead of opening a pull request."
)
to_option = click.option(
    "--to", metavar="REPO", help="Where to push; by default {user}/{base}-edited, made private."
)
force_option = click.option(
    "--force", is_flag=True, help="Go on where a guard would stop; the card says so."
)


def edit_argument(command: _CommandT) -> _CommandT:
    """The argument `REPO[@REV]|DIR`, whose revision may also be given as `--revision`."""
    option = click.option(
        "--revision",
        metavar="REV",
        is_eager=True,
        expose_value=False,
        callback=_keep_revision,
        help="A tag such as v1, a branch, refs/pr/N or a commit; the same as REPO@REV.",
    )
    argument = click.argument("edit", metavar="REPO[@REV]|DIR", callback=_with_revision)
    return argument(option(command))


def _keep_revision(context: click.Context, _option: click.Parameter, revision: str | None) -> None:
    context.meta["hubedit.revision"] = revision


def _with_revision(context: click.Context, _argument: click.Parameter, edit: str) -> str:
    revision = context.meta.get("hubedit.revision")
    if not revision:
        return edit
    if Path(edit).is_dir():
        raise click.UsageError(f"{edit} is a directory and has no revisions; leave --revision out")
    if "@" in edit:
        raise click.UsageError(f"{edit} names a revision already; leave --revision out")
    return f"{edit}@{revision}"


def hub_opener(local: bool) -> Callable[[], Hub]:
    """Open the Hub when it is first needed: the embedded one, or the one the environment names."""
    kept: list[Hub] = []
    context = click.get_current_context()
    local = local or bool((context.find_root().obj or {}).get("local"))

    def opened() -> Hub:
        if not kept:
            from hubedit.hub import Hub

            endpoint = None
            if local:
                from hubedit.plugins import load_plugins

                endpoint = load_plugins().endpoint("local")
            kept.append(Hub(endpoint))
        return kept[0]

    return opened


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True))


def write_page(path: Path, page: str) -> None:
    """Write a page whole or not at all, and say where it is.

    Raises:
        OutputError: it cannot be written there.
    """
    from hubedit.errors import OutputError

    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); give another file with --html"
        ) from error
    click.echo(f"the report is in {path}", err=True)


def size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError
