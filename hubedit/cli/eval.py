"""`hubedit eval`: what an edited model does on cases, beside its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubedit.cli.forgotten import forgetting_options, forgotten
from hubedit.cli.options import (
    base_option,
    edit_argument,
    hub_opener,
    json_option,
    local_option,
    print_json,
)

if TYPE_CHECKING:
    from hubedit.evaluating import Evaluation
    from hubedit.evaluating.tasks import TaskScore


@click.command("eval", epilog="Example: hubedit eval me/facts-gpt2-edited@v1 --cases facts-gpt2")
@edit_argument
@click.option(
    "--cases",
    metavar="FILE|hf://datasets/…|NAME",
    help="Cases to ask; by default the facts that the edits were asked for.",
)
@click.option("--split", default="test", show_default=True, help="Which of the cases.")
@click.option("--reader", metavar="NAME", help="How the cases are written, such as zsre-answers.")
@click.option("--limit", type=click.IntRange(min=1), help="How many cases, at most.")
@click.option(
    "--against", metavar="REPO[@REV]|DIR", help="Compare with this model instead of the base."
)
@click.option("--texts", "corpus", metavar="FILE|hf://datasets/…", help="Neutral texts to read.")
@click.option("--no-writing", is_flag=True, help="Let the models write no texts (quicker).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--tasks",
    metavar="NAME,…",
    help="Also run tasks of lm-evaluation-harness, where it is installed.",
)
@click.option("--task-limit", type=click.IntRange(min=1), help="Examples of each task, at most.")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write JSON, a page, a picture and a model-index block to a new directory.",
)
@forgetting_options
@base_option
@local_option
@json_option
def command(
    edit: str,
    forget: tuple[str, ...],
    oracle: str | None,
    gates: tuple[str, ...],
    robust: bool,
    attach: bool,
    tasks: str | None,
    task_limit: int | None,
    output: Path | None,
    no_writing: bool,
    local: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Ask base and edited model the same cases, and give every figure with its interval.

    With --forget, measure instead how far the rows of a request are forgotten.
    """
    from hubedit import revisions
    from hubedit.cli.talk import TerminalTalk
    from hubedit.evaluating import evaluate
    from hubedit.evaluating.tasks import check_harness
    from hubedit.recipe import parse_request

    request = parse_request(forget)
    if request is not None:
        if tasks:
            raise click.UsageError("--tasks and --forget are two evaluations; run one at a time")
        forgotten(
            edit,
            request,
            output=output,
            as_json=as_json,
            oracle=oracle,
            gates=gates,
            robust=robust,
            attach=attach,
            base=given["base"],
            limit=given["limit"],
            hub=hub_opener(local),
        )
        return
    if oracle or gates or robust or attach:
        raise click.UsageError("--oracle, --gate, --robust and --attach go with --forget REQUEST")
    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if names:
        check_harness(names)
    if output is not None:
        revisions.check_output(output)
    talk, opened = TerminalTalk(quiet=as_json), hub_opener(local)
    found = evaluate(edit, hub=opened, talk=talk, texts=not no_writing, **given)
    ran = _tasks(edit, given["base"], opened, names, task_limit) if names else {}
    if output is not None:
        _write(output, found, ran)
        talk.log(f"written to {output}")
    if as_json:
        print_json({**found.model_dump(mode="json"), "tasks": _plain(ran)})
        return
    _show(found, ran)


def _tasks(
    edit: str, base: str | None, opened: Any, names: list[str], limit: int | None
) -> dict[str, list[TaskScore]]:
    from hubedit.editions import open_edition
    from hubedit.evaluating.evaluation import loaded
    from hubedit.evaluating.tasks import run_tasks

    edition = open_edition(edit, opened, base)
    ran = {}
    for label, height in (("before", 0), ("after", None)):
        with loaded(edition, height) as model:
            ran[label] = run_tasks(model, names, limit)
    return ran


def _plain(ran: dict[str, list[TaskScore]]) -> dict[str, Any]:
    return {
        label: [score.model_dump(mode="json") for score in scores] for label, scores in ran.items()
    }


def _write(output: Path, found: Evaluation, ran: dict[str, list[TaskScore]]) -> None:
    import json

    from hubedit import revisions
    from hubedit.evaluating.picture import picture
    from hubedit.evaluating.table import markdown, model_index

    with revisions.finished_directory(output) as work:
        value = {**found.model_dump(mode="json"), "tasks": _plain(ran)}
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
        (work / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        (work / "evaluation.md").write_text(markdown(found), encoding="utf-8")
        (work / "evaluation.png").write_bytes(picture(found))
        (work / "model-index.yml").write_text(model_index(found), encoding="utf-8")


def _show(found: Evaluation, ran: dict[str, list[TaskScore]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from hubedit.evaluating.table import HEADS, rows

    title = f"{found.after}, beside {found.before}: {found.n} cases ({found.cases})"
    table = Table(*HEADS, box=None, header_style="bold", title=title, title_justify="left")
    last = ""
    for cells in rows(found.scores):
        if last and cells[0] != last:
            table.add_section()
        table.add_row(*("" if cells[0] == last else cells[0], *cells[1:]))
        last = cells[0]
    console = Console(markup=False, highlight=False)
    console.print(table)
    for one in found.skipped:
        console.print(f"not measured: {one.metric} ({one.reason})", style="dim")
    for label, scores in ran.items():
        for score in scores:
            console.print(f"{label}: {score.task} {score.metric} {score.value:.4f}")
