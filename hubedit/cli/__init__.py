"""The command line: one short module per verb, loaded when the verb is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

VERBS = {
    "apply": "Edit a model as a recipe says, and push the revision with --push.",
    "ask": "Ask base and edited model the same, side by side.",
    "bench": "Compare methods on models, with one and many edits at once.",
    "bisect": "Find the edit of a stack that changed an answer.",
    "conflicts": "List edits of a stack that meet: one tensor, or one subject.",
    "delta": "Write the difference of two checkpoints as an edit, bit for bit.",
    "diff": "Compare two revisions or models: edits, and tensor by tensor.",
    "doctor": "Check this installation, or whether a model can be edited.",
    "env": "Print versions and settings for a bug report.",
    "erasure": "Show with the key what was in a request that was not published.",
    "eval": "Score an edited model on cases, beside its base.",
    "export": "Write an edit as an adapter for PEFT, and say how exact that is.",
    "log": "List the revisions of an edit repository.",
    "materialize": "Write the edited model as plain files that transformers loads.",
    "merge": "Merge a pull request and tag the new version.",
    "methods": "List the methods, or describe one.",
    "plan": "Say what apply would load, change and send, without doing it.",
    "plugins": "List the installed plugins, and what failed to load.",
    "rebase": "Put a stack of edits on another commit of its base.",
    "review": "Check a pull request before it is merged, and give a verdict.",
    "revert": "Take an edit back, with the proof that the bits are those from before.",
    "push": "Push an edit that `apply` wrote, as a pull request.",
    "show": "Show what an edit changed and where it came from.",
    "stats": "Compute, list and share second moments, which edits are made with.",
    "trace": "Find the layers that facts are read at, by causal tracing.",
    "verify": "Check every digest, and rebuild what was changed.",
}
EPILOG = "Example: hubedit apply --push   (reads hubedit.yaml)"


class Verbs(click.Group):
    """The verbs of this package, and the commands that plugins bring."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs."""
        return sorted({*VERBS, *_plugin_commands()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load one verb."""
        if name in VERBS:
            command = import_module(f"hubedit.cli.{name}").command
            assert isinstance(command, click.Command)
            return command
        point = _plugin_commands().get(name)
        if point is None:
            return None
        try:
            loaded = point.load()
        except Exception as error:  # a stranger's command must not take the others down
            raise click.ClickException(
                f"the command {name!r} of {point.value.partition(':')[0]} failed to load: {error}"
            ) from error
        return loaded if isinstance(loaded, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a verb, naming the nearest ones where there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            if not close or "Did you mean" in error.message:
                raise
            hint = " Did you mean " + " or ".join(close) + "?"
            raise click.UsageError(error.message + hint, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without loading them."""
        rows = [(name, text) for name, text in VERBS.items()]
        rows += [
            (name, f"From {point.value.partition('.')[0].partition(':')[0]}.")
            for name, point in _plugin_commands().items()
        ]
        with formatter.section("Verbs"):
            formatter.write_dl(sorted(rows))


def _plugin_commands() -> dict[str, Any]:
    from importlib.metadata import entry_points

    blocked = os.environ.get("HUBEDIT_DISABLE_PLUGINS", "").split(",")
    points = entry_points(group="hubedit.commands")
    return {point.name: point for point in points if point.name not in blocked}


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from hubedit import __version__

        click.echo(f"hubedit {__version__}")
        ctx.exit()


@click.command(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--local", is_flag=True, help="Talk to the embedded Hub of this machine.")
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Show the version.",
)
@click.pass_context
def cli(ctx: click.Context, local: bool) -> None:
    """Change what a Hugging Face model knows, and prove exactly what you changed."""
    ctx.obj = {"local": local}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: exit status 0 done, 1 a known error, 2 wrong usage."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line in this process; returns its exit status."""
    try:
        result = cli.main(arguments, prog_name="hubedit", standalone_mode=False)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.Abort:
        return _say("interrupted; nothing was left half done")
    except click.ClickException as error:
        error.show()
        return int(error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted; nothing was left half done")
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader of our output is gone
        return 0
    except Exception as error:
        if os.environ.get("HUBEDIT_DEBUG"):
            raise
        return _say(_worded(error))
    return result if isinstance(result, int) else 0


def _worded(error: Exception) -> str:
    from hubedit.errors import HubEditError

    if isinstance(error, HubEditError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; nothing was left half done"
    return (
        f"unexpected {type(error).__name__}: {error}; this is a bug in hubedit or in a plugin, "
        "HUBEDIT_DEBUG=1 shows where"
    )


def _say(message: str) -> int:
    click.echo(f"hubedit: {message}", err=True)
    return 1
