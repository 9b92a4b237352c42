"""A bench as a table for people, as Markdown, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from hubedit.benching.cells import Cell
from hubedit.benching.matrix import Matrix
from hubedit.evaluating.scoring import Score
from hubedit.evaluating.table import shown

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("efficacy", "rewrite", "exact"),
    ("free", "rewrite", "free"),
    ("paraphrase", "paraphrase", "exact"),
    ("neighbours", "neighbour", "unchanged"),
    ("neighbours, exact", "neighbour", "exact"),
    ("attributes", "attribute", "unchanged"),
    ("portability", "portability", "exact"),
    ("S", "all", "score-success"),
    ("divergence", "neutral", "divergence"),
)
"""Head, group and metric of what a table shows; one that no cell has is left out."""
MEANING = (
    "Efficacy and paraphrase: every token of the new answer is the likeliest one, under teacher "
    "forcing; free: the model writes it by itself. Neighbours and attributes: the likeliest tokens "
    "are those from before the edit; exact: they are the right answer. S: harmonic mean of the "
    "shares in which the right answer is the likelier one. Divergence: of predictions on neutral "
    "texts, in nats. Seconds per edit and bytes of the delta are medians over runs."
)


def columns(cells: Sequence[Cell]) -> list[tuple[str, str, str]]:
    """The columns that some cell has a figure for."""
    return [
        (head, group, metric)
        for head, group, metric in COLUMNS
        if any(cell.score(group, metric) for cell in cells)
    ]


def heads(matrix: Matrix) -> list[str]:
    """What stands above the cells of `line`."""
    shown_columns = [head for head, _, _ in columns(matrix.cells)]
    return ["model", "method", "edits", *shown_columns, "s / edit", "bytes"]


def line(matrix: Matrix, cell: Cell) -> list[str]:
    """One cell as a row of a table."""
    figures = [_figure(cell.score(group, metric)) for _, group, metric in columns(matrix.cells)]
    if cell.state != "done":
        figures = [f"{cell.state}: {cell.reason}", *[""] * (len(figures) - 1)]
    stopped = f" ({len(cell.stopped)} of {cell.runs} stopped)" if cell.stopped else ""
    return [
        cell.model,
        cell.method,
        f"{cell.edits}{stopped}",
        *figures,
        "" if cell.seconds is None else f"{cell.seconds:.2f}",
        "" if cell.delta_bytes is None else f"{cell.delta_bytes:,}",
    ]


def _figure(score: Score | None) -> str:
    return "–" if score is None else shown(score.metric, score.after).removesuffix(" %")


def markdown(matrix: Matrix) -> str:
    """The whole bench as a page."""
    lines = ["# Bench", ""]
    for column in matrix.models:
        lines.append(
            f"- {column.model} ({column.architecture}): {column.n} cases of {column.cases}"
        )
    threads = f"{matrix.threads} thread" + ("" if matrix.threads == 1 else "s")
    lines += [
        "",
        f"hubedit {matrix.hubedit}, seed {matrix.seed}, {threads}. Shares in per cent.",
        "",
    ]
    lines += [MEANING, ""]
    lines += ["| " + " | ".join(heads(matrix)) + " |", "|---" * len(heads(matrix)) + "|"]
    lines += ["| " + " | ".join(line(matrix, cell)) + " |" for cell in matrix.cells]
    stopped = [(cell, reason) for cell in matrix.cells for reason in dict.fromkeys(cell.stopped)]
    if stopped:
        lines += ["", "Stopped runs are scored as the unedited model:", ""]
        lines += [
            f"- {cell.method} on {cell.model}, {cell.edits} at once: {reason}"
            for cell, reason in stopped
        ]
    return "\n".join(lines) + "\n"


def picture(matrix: Matrix) -> bytes:
    """The first shares of the table by number of edits: a row of panels for each model."""
    from matplotlib.figure import Figure

    shown_columns = [column for column in columns(matrix.cells) if column[2] != "divergence"][:5]
    wide, high = max(len(shown_columns), 1), max(len(matrix.models), 1)
    figure = Figure(figsize=(2.6 * wide, 2.2 * high + 0.5), dpi=110, facecolor="white")
    panels = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
    places = {size: place for place, size in enumerate(matrix.edits)}
    for row, column in enumerate(matrix.models):
        for number, (head, group, metric) in enumerate(shown_columns):
            axes = panels[row][number]
            for index, method in enumerate(matrix.methods):
                points = [
                    (places[cell.edits], 100 * score.after)
                    for cell in matrix.cells
                    if (cell.model, cell.method) == (column.model, method)
                    and (score := cell.score(group, metric)) is not None
                ]
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    marker="o",
                    markersize=3,
                    linewidth=1.2,
                    color=f"C{index % 10}",
                    label=method,
                )
            axes.set_ylim(-4, 104)
            axes.set_xticks(list(places.values()), [str(size) for size in places])
            axes.set_title(f"{column.model}: {head}", fontsize=8)
            axes.tick_params(labelsize=7)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=max(len(labels), 1), fontsize=7)
    figure.supxlabel("edits at once", fontsize=8, y=0.07 / high + 0.02)
    figure.tight_layout(rect=(0, 0.12 / high, 1, 1))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()
