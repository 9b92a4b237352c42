"""A measurement of forgetting as Markdown, a page of its own."""

from __future__ import annotations

from hubedit.measured import (
    HEADS,
    Forgetting,
    curve_heads,
    curve_rows,
    gate_lines,
    made_of_lines,
    measure_rows,
)


def markdown(found: Forgetting) -> str:
    """The whole measurement as a page."""
    asked = ", ".join(f"{count} {part}" for part, count in found.parts.items())
    lines = [f"# {found.after}", "", f"Beside {found.before}. Cases: {asked}.", ""]
    lines += [found.reference, "", *_table(HEADS, measure_rows(found)), ""]
    lines += [f"{line}\n" for line in made_of_lines(found)]
    if found.curves:
        lines += ["Extraction strength of forgotten answers under treatment:", ""]
        lines += [*_table(curve_heads(found), curve_rows(found)), ""]
    lines += [f"- {line}" for _, line in gate_lines(found)]
    lines += [""] if found.gates else []
    lines += [f"- `{one.name}`: {one.words} ({one.variant})" for one in found.measures]
    lines += ["", "Approximate unlearning suppresses; no figure here proves that it deletes."]
    return "\n".join(lines) + "\n"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    made = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return made + ["| " + " | ".join(cells) + " |" for cells in rows]
