"""A measurement of forgetting as rows for people and as Markdown."""

from __future__ import annotations

from hubedit.evaluating.forgotten import Forgetting
from hubedit.forgetting.measures import Value

HEADS = ("measure", "before", "after", "95 % interval", "oracle", "should be", "n")


def shown(value: Value | None) -> str:
    """A figure with three digits."""
    return "–" if value is None else f"{value.value:.3g}"


def measure_rows(found: Forgetting) -> list[tuple[str, ...]]:
    """Every measure as cells, under `HEADS`."""
    rows: list[tuple[str, ...]] = []
    for one in found.measures:
        low, high = one.after.low, one.after.high
        interval = "–" if low is None or high is None else f"{low:.3g} to {high:.3g}"
        cells = (one.name, shown(one.before), shown(one.after), interval, shown(one.oracle))
        rows.append((*cells, one.better, str(one.after.n)))
    return rows


def curve_heads(found: Forgetting) -> tuple[str, ...]:
    """Heads of the curves: treatment, how much, and each model."""
    return ("treatment", "amount", *found.curves)


def curve_rows(found: Forgetting) -> list[tuple[str, ...]]:
    """Extraction strength of every model at every place of the curves."""
    rows: list[tuple[str, ...]] = []
    for points in zip(*found.curves.values(), strict=True):
        cells = (f"{point.strength:.3g}" for point in points)
        rows.append((points[0].gate, str(points[0].amount), *cells))
    return rows


def gate_lines(found: Forgetting) -> list[tuple[bool, str]]:
    """Each gate: whether it was kept, and in words."""
    lines = []
    for gate in found.gates:
        wanted = f"at {'least' if gate.at_least else 'most'} {gate.limit:g}"
        says = "kept" if gate.passed else "not kept"
        lines.append((gate.passed, f"gate {gate.name} {wanted}: {gate.value:.3g}, {says}"))
    return lines


def markdown(found: Forgetting) -> str:
    """The whole measurement as a page."""
    asked = ", ".join(f"{count} {part}" for part, count in found.parts.items())
    lines = [f"# {found.after}", "", f"Beside {found.before}. Cases: {asked}.", ""]
    lines += [found.reference, "", *_table(HEADS, measure_rows(found)), ""]
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
