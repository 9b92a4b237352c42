"""How far an edit has forgotten its request, as it was measured: what its manifest keeps of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Better = Literal["low", "high", "as oracle"]


class Measured(BaseModel):
    """A part of a measurement: frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(Measured):
    """One measured value; `low` and `high` are its 95 % interval where it has one."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


class Point(Measured):
    """One place on a curve of one model: the treatment, how much of it, what came back.

    `strength` is extraction strength and `probability` the probability of the answer, means over
    the `n` forgotten cases that were asked.
    """

    gate: str
    amount: int
    strength: float
    probability: float
    n: int


class Measure(Measured):
    """One measure of each model, with its words, variant and direction.

    `made_of` says of a mean of several numbers which they are, each with how many cases it is of.
    """

    name: str
    words: str
    variant: str
    better: Better
    before: Value
    after: Value
    oracle: Value | None
    made_of: dict[str, int] = {}


class Gate(Measured):
    """A limit that a figure had to keep: at least `limit` or at most."""

    name: str
    limit: float
    at_least: bool
    value: float
    passed: bool


class Forgetting(Measured):
    """How far a request is forgotten.

    `before`, `after` and `oracle` name the models; `parts` are the cases asked of each part.
    `curves` are by model (before, after, oracle), empty unless they were asked for.
    """

    hubedit: str
    before: str
    after: str
    oracle: str | None
    parts: dict[str, int]
    threads: int
    measures: tuple[Measure, ...]
    curves: dict[str, tuple[Point, ...]] = {}
    gates: tuple[Gate, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate was kept; true of none."""
        return all(gate.passed for gate in self.gates)

    def measure(self, name: str) -> Measure | None:
        """One measure, or None if it was not taken."""
        return next((one for one in self.measures if one.name == name), None)

    @property
    def reference(self) -> str:
        """What the model was compared with, in one sentence."""
        if self.oracle is None:
            return (
                "No model retrained without the forgotten data was given: forget quality, privacy "
                "leakage and what such a model would answer are not known."
            )
        return f"Compared with {self.oracle}, a model retrained without the forgotten data."


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


def made_of_lines(found: Forgetting) -> list[str]:
    """What the measures that join several numbers are made of, and what is left out of them."""
    names: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for one in found.measures:
        if one.made_of:
            names.setdefault(tuple(one.made_of.items()), []).append(one.name)
    lines = []
    for numbers, measures in names.items():
        listed = ", ".join(f"{name} ({n})" for name, n in numbers)
        lines.append(f"{' and '.join(measures)}: of {len(numbers)} numbers, {listed}.")
        lines += [f"Left out: {words}." for words in _left_out(dict(numbers))]
    return lines


def _left_out(numbers: dict[str, int]) -> list[str]:
    """Cases that a number of their part is not of; every part has its recall."""
    words = []
    for part, whole in ((name.split()[0], n) for name, n in numbers.items() if "recall" in name):
        without = whole - numbers.get(f"{part} truth ratio", 0)
        if without:
            words.append(
                f"{without} of {whole} cases of {part} have no wrong answers, so no truth ratio"
            )
    return words


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
