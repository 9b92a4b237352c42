"""The row that the method takes: a fact, of which the new answer may be left out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

import hubedit


class KnownFact(hubedit.FactEdit):
    """One fact that a model knows; without a `target` it is to go, and nothing takes its place.

    `true_target` is what the model answers now, `target` what it shall answer. Erase and suppress
    take rows without a `target`, update and enhance rows with one; others are refused.
    """

    target: str = Field(
        "", description="the answer the edited model gives; leave it out to erase or suppress"
    )

    @model_validator(mode="after")
    def _usable(self) -> KnownFact:
        if self.target.strip() or (self.true_target or "").strip():
            fields = {**dict(self), "target": self.target if self.target.strip() else "-"}
            hubedit.FactEdit.model_validate(fields)
            return self
        raise ValueError(
            "neither target nor true_target is there; name what the model answers now as "
            "true_target, and what it shall answer as target"
        )

    @property
    def part_name(self) -> str:
        """forget where nothing takes the answer's place, else rows."""
        return "rows" if self.target.strip() else "forget"

    def describe(self) -> str:
        """Say the change in words."""
        if self.target.strip():
            return super().describe()
        return f"“{self.text}” → no longer “{(self.true_target or '').strip()}”"

    def questions(self, number: int) -> list[Any]:
        """The prompt and its paraphrases, whose answer is to change or to go; those that stay."""
        if self.target.strip():
            return list(super().questions(number))
        as_known = self.model_copy(update={"target": self.true_target})
        return [
            question.model_copy(update={"group": "forget"})
            if question.group in ("rewrite", "paraphrase")
            else question
            for question in hubedit.FactEdit.questions(as_known, number)
        ]
