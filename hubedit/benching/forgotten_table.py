"""A bench of forgetting as a table for people, as Markdown, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from hubedit.benching.forgotten import (
    ORIGINAL,
    QUALITY,
    UTILITY,
    Asked,
    ForgottenCell,
    ForgottenMatrix,
)

COLUMNS: tuple[tuple[str, str], ...] = (
    ("p", "forget-quality"),
    ("utility", "utility"),
    ("ES", "extraction-strength"),
    ("EM", "exact-memorisation"),
    ("TR", "forget-truth-ratio"),
    ("MIA", "mia-min-k"),
    ("relearnt", "relearn"),
    ("int4", "int4"),
)
"""Head and measure of what a table shows; one that no cell has is left out."""
MEANING = (
    "p: forget quality, of the truth ratios being the retrained model's. Utility: TOFU's, of what "
    "is kept. ES: extraction strength, EM: exact memorisation and TR: truth ratio of forgotten "
    "answers. MIA: AUC of Min-40 % between forgotten answers and held-out ones that no method was "
    "told. Relearnt: ES of forgotten answers after others of them were learnt again; int4: after "
    "rounding to four bits. All but p and utility should be as those of the retain oracle."
)


def columns(cells: Sequence[ForgottenCell]) -> list[tuple[str, str]]:
    """The columns that some cell has a figure for."""
    return [one for one in COLUMNS if any(cell.figure(one[1]) is not None for cell in cells)]


def heads(matrix: ForgottenMatrix) -> list[str]:
    """What stands above the cells of `line`."""
    return ["method", *[head for head, _ in columns(matrix.cells)], "s", "bytes"]


def line(matrix: ForgottenMatrix, cell: ForgottenCell) -> list[str]:
    """One cell as a row of a table; a star stands for a guard that was overruled."""
    figures = [shown(cell.figure(name)) for _, name in columns(matrix.cells)]
    if cell.state != "done":
        figures = [f"{cell.state}: {cell.reason}", *[""] * (len(figures) - 1)]
    return [
        f"{cell.method}*" if cell.overruled else cell.method,
        *figures,
        "" if cell.seconds is None else f"{cell.seconds:.0f}",
        "" if cell.delta_bytes is None else f"{cell.delta_bytes:,}",
    ]


def shown(value: float | None) -> str:
    """A figure with two or three digits."""
    if value is None:
        return "–"
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"


def by_request(matrix: ForgottenMatrix) -> Iterator[tuple[Asked, list[ForgottenCell]]]:
    """Each request with its cells."""
    for asked in matrix.requests:
        where = (asked.model, asked.request)
        yield asked, [cell for cell in matrix.cells if (cell.model, cell.request) == where]


def title(asked: Asked) -> str:
    """A request in one line."""
    parts = ", ".join(f"{count} {part}" for part, count in asked.parts.items())
    chosen = f"; settings chosen on {asked.chosen}" if asked.chosen else ""
    return f"{asked.model}, {asked.request}: {parts}{chosen}"


def verdict(matrix: ForgottenMatrix) -> str:
    """Which methods pass, in one sentence."""
    asked = "every request" if len(matrix.requests) > 1 else "the request"
    names = ", ".join(matrix.passing()) or "no method"
    return f"p above {QUALITY:g} and {UTILITY:g} of the original's utility on {asked}: {names}."


def notes(matrix: ForgottenMatrix) -> list[str]:
    """The guards that were overruled."""
    return [
        f"* {cell.method}, {cell.request}: {reason}"
        for cell in matrix.cells
        for reason in cell.overruled
    ]


def markdown(matrix: ForgottenMatrix) -> str:
    """The whole bench as a page."""
    threads = f"{matrix.threads} thread" + ("" if matrix.threads == 1 else "s")
    lines = ["# Bench of forgetting", ""]
    lines += [f"hubedit {matrix.hubedit}, seed {matrix.seed}, {threads}.", "", MEANING, ""]
    for asked, cells in by_request(matrix):
        lines += [f"## {title(asked)}", ""]
        lines += ["| " + " | ".join(heads(matrix)) + " |", "|---" * len(heads(matrix)) + "|"]
        lines += ["| " + " | ".join(line(matrix, cell)) + " |" for cell in cells]
        lines.append("")
    lines += [verdict(matrix), ""]
    lines += [f"- {note}" for note in notes(matrix)]
    return "\n".join(lines).rstrip() + "\n"


def picture(matrix: ForgottenMatrix) -> bytes:
    """What is forgotten against what is kept: a panel for each request, a point for each cell."""
    from matplotlib.figure import Figure

    wide = max(len(matrix.requests), 1)
    figure = Figure(figsize=(3.4 * wide, 3.9), dpi=110, facecolor="white")
    panels = figure.subplots(1, wide, squeeze=False, sharex=True, sharey=True)[0]
    order = list(dict.fromkeys(cell.method for cell in matrix.cells))
    for axes, (asked, cells) in zip(panels, by_request(matrix), strict=False):
        for cell in cells:
            x, y = cell.figure("extraction-strength"), cell.figure("utility")
            if x is None or y is None:
                continue
            reference = cell.method not in matrix.methods
            place = order.index(cell.method)
            axes.plot(
                [x],
                [y],
                "*" if reference else "osD^"[place // 10 % 4],
                markersize=12 if reference else 6,
                color=f"C{place % 10}",
                label=cell.method,
            )
            if cell.method == ORIGINAL:
                axes.axhline(UTILITY * y, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(f"{asked.model}, {asked.request}", fontsize=8)
        axes.set_xlabel("extraction strength of what is forgotten", fontsize=7)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("utility of what is kept", fontsize=7)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=7)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()
