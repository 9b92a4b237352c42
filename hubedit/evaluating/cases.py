"""Cases: a fact to rewrite with all that is asked of the model before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from hubedit.rows import FactEdit, ProbePrompt

CaseGroup = Literal["rewrite", "paraphrase", "portability", "neighbour", "attribute"]
GROUPS: tuple[CaseGroup, ...] = ("rewrite", "paraphrase", "portability", "neighbour", "attribute")
TOLD = frozenset({"prompt", "subject", "target", "true_target", "case_id", "relation"})
"""All that a method is told of a case that it is scored on."""


class FactCase(FactEdit):
    """A `FactEdit` to be scored.

    `portability` are prompts whose answer follows from the new fact, with that answer;
    `generations` are beginnings of texts for the model to write on; `references` are texts that
    speak rightly of things for which the new answer is true.
    """

    portability: tuple[ProbePrompt, ...] = Field((), description="what follows from the new fact")
    generations: tuple[str, ...] = Field((), description="beginnings of texts to write on")
    references: tuple[str, ...] = Field((), description="texts on things with the new answer")
    split: str | None = Field(None, description="which part of its data set the case belongs to")

    @field_validator("portability", mode="before")
    @classmethod
    def _with_answers(cls, value: Any) -> Any:
        for item in value if isinstance(value, Sequence) and not isinstance(value, str) else ():
            if isinstance(item, str) or (isinstance(item, dict) and not item.get("target")):
                raise ValueError("each prompt needs its answer, as in {prompt: …, target: …}")
        return value

    def told(self) -> FactEdit:
        """The request that a method is given: none of the prompts that it is scored on."""
        return FactEdit.model_validate(self.model_dump(include=set(TOLD)))

    @property
    def fact(self) -> tuple[str, str | None]:
        """What the case changes: the subject, and the answer that goes."""
        return self.subject, self.true_target


@dataclass(frozen=True)
class Item:
    """One prompt of a case: `target` is the right answer after the edit, `rival` the wrong one."""

    case: int
    group: CaseGroup
    prompt: str
    target: str | None
    rival: str | None = None


def items(cases: Sequence[FactCase]) -> list[Item]:
    """Every prompt of cases that one edit makes together, in order.

    The answer of a neighbour is its own, and its rival the new one of the edit. A neighbour or
    attribute whose fact another of the cases changes is left out: it should not stay.
    """
    changed = {case.fact for case in cases}
    return [item for number, case in enumerate(cases) for item in _of(number, case, changed)]


def _of(number: int, case: FactCase, changed: set[tuple[str, str | None]]) -> Iterator[Item]:
    yield Item(number, "rewrite", case.text, case.target, case.true_target)
    for prompt in case.paraphrases:
        yield Item(number, "paraphrase", prompt, case.target, case.true_target)
    for probe in case.portability:
        yield Item(number, "portability", probe.prompt, probe.target)
    for probe in case.neighbours:
        if not _is_changed(probe, changed):
            yield Item(number, "neighbour", probe.prompt, probe.target, case.target)
    for probe in case.attributes:
        if not _is_changed(probe, changed):
            yield Item(number, "attribute", probe.prompt, probe.target)


def _is_changed(probe: ProbePrompt, changed: set[tuple[str, str | None]]) -> bool:
    return any(
        answer is not None and probe.target == answer and subject in probe.prompt
        for subject, answer in changed
    )


def told_apart(cases: Sequence[FactCase]) -> list[FactCase]:
    """The cases without those that change a fact which an earlier one changes."""
    kept: dict[tuple[str, str | None], FactCase] = {}
    for case in cases:
        kept.setdefault(case.fact, case)
    return list(kept.values())
