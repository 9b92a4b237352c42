"""The types of rows a request is made of: what to change, forget or keep, and what to ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Group = Literal["rewrite", "paraphrase", "neighbour", "attribute", "forget", "retain"]


def continued(prompt: str, target: str) -> str:
    """A target as it continues a prompt: after a space, unless the prompt ends in white space."""
    return target.strip() if prompt[-1:].isspace() else " " + target.strip()


class Row(BaseModel):
    """One item of a request; frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def part_name(self) -> str:
        """Which part of the request the row belongs to, such as forget or retain."""
        return "rows"

    def describe(self) -> str:
        """Say in words what the row asks for; empty if words would not help."""
        return ""

    def questions(self, number: int) -> list[Question]:
        """What to ask a model before and after, for the row of this number."""
        return []

    def with_prompts(self, write: Callable[[str], str]) -> Self:
        """The row with every prompt written anew, such as through a chat template."""
        return self


class Question(BaseModel):
    """One prompt to ask for the row of a number; `target` is whose probability is followed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: int
    group: Group
    prompt: str
    target: str | None = None


class ProbePrompt(Row):
    """A prompt that an edit must leave alone, with the answer it should keep if that is known."""

    prompt: str = Field(min_length=1)
    target: str | None = None


class FactEdit(Row):
    """One fact to rewrite: after the edit, `prompt` about `subject` continues with `target`.

    `prompt` holds `{}` exactly once, where `subject` goes. `true_target` is the answer before the
    edit. `paraphrases` are whole prompts that should follow the edit; `neighbours` (other subjects)
    and `attributes` (other facts of the same subject) are prompts that should not.
    """

    prompt: str = Field(description="a prompt with `{}` where the subject goes")
    subject: str = Field(description="what the fact is about")
    target: str = Field(description="the answer the edited model gives")
    true_target: str | None = Field(None, description="the answer before the edit")
    paraphrases: tuple[str, ...] = Field(
        (), description="whole prompts that should follow the edit"
    )
    neighbours: tuple[ProbePrompt, ...] = Field((), description="prompts on others that must stay")
    attributes: tuple[ProbePrompt, ...] = Field(
        (), description="the subject's other facts that must stay"
    )
    case_id: str | None = Field(None, description="a name for the row")

    @field_validator("neighbours", "attributes", mode="before")
    @classmethod
    def _plain_prompts(cls, value: Any) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [{"prompt": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("case_id", mode="before")
    @classmethod
    def _case_id_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _usable(self) -> FactEdit:
        holes = self.prompt.count("{}")
        if holes != 1:
            raise ValueError(
                f"the prompt holds {{}} {holes} times; write it once, where the subject goes, "
                f"as in '{{}} plays the'"
            )
        if not self.subject.strip():
            raise ValueError("the subject is empty; say whom or what the fact is about")
        if not self.target.strip():
            raise ValueError("the target is empty; say what the edited model should answer")
        return self

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)

    @property
    def subject_span(self) -> tuple[int, int]:
        """Character offsets [start, end) of the subject within `text`."""
        start = self.prompt.index("{}")
        return start, start + len(self.subject)

    @property
    def continuation(self) -> str:
        """The target as it continues the prompt: after a space, unless the prompt ends in one."""
        return continued(self.prompt, self.target)

    def with_prompts(self, write: Callable[[str], str]) -> Self:
        """The row with its prompt, paraphrases, neighbours and attributes written anew."""

        def anew(items: tuple[ProbePrompt, ...]) -> list[ProbePrompt]:
            return [item.model_copy(update={"prompt": write(item.prompt)}) for item in items]

        fields = {
            **dict(self),
            "prompt": write(self.prompt),
            "paraphrases": [write(prompt) for prompt in self.paraphrases],
            "neighbours": anew(self.neighbours),
            "attributes": anew(self.attributes),
        }
        return type(self).model_validate(fields)

    def describe(self) -> str:
        """Say the change in words."""
        before = f"“{self.true_target.strip()}” becomes " if self.true_target else ""
        return f"“{self.text}” → {before}“{self.target.strip()}”"

    def questions(self, number: int) -> list[Question]:
        """The prompt and its paraphrases, which follow the edit, and those that should stay."""
        target = self.target.strip()
        asked = [Question(row=number, group="rewrite", prompt=self.text, target=target)]
        asked += [
            Question(row=number, group="paraphrase", prompt=prompt, target=target)
            for prompt in self.paraphrases
        ]
        others: tuple[tuple[Group, tuple[ProbePrompt, ...]], ...] = (
            ("neighbour", self.neighbours),
            ("attribute", self.attributes),
        )
        for group, prompts in others:
            asked += [
                Question(
                    row=number,
                    group=group,
                    prompt=item.prompt,
                    target=item.target.strip() if item.target else None,
                )
                for item in prompts
            ]
        return asked


class ForgetText(Row):
    """A text that the model shall lose (`part` forget) or keep (`part` retain).

    `prompt` and `target` make it a question: before forgetting, the model continues the prompt
    with the target.
    """

    text: str = Field(min_length=1, description="the text")
    part: Literal["forget", "retain"] = Field("forget", description="forget or retain")
    prompt: str | None = Field(None, min_length=1, description="what asks for the text's content")
    target: str | None = Field(None, min_length=1, description="the answer in the text")

    @model_validator(mode="after")
    def _usable(self) -> ForgetText:
        if (self.prompt is None) != (self.target is None):
            raise ValueError("a prompt and a target go together; give both or neither")
        if not self.text.strip():
            raise ValueError("the text is empty; say what to forget or to retain")
        return self

    @property
    def part_name(self) -> str:
        """forget or retain."""
        return self.part

    def with_prompts(self, write: Callable[[str], str]) -> Self:
        """The row with its prompt written anew, and its text as prompt and target if it has one."""
        if self.prompt is None or self.target is None:
            return self
        prompt = write(self.prompt)
        text = prompt + continued(prompt, self.target)
        return self.model_copy(update={"prompt": prompt, "text": text})

    def describe(self) -> str:
        """Say what to forget; what is retained goes without saying."""
        return f"forget “{self.text.strip()}”" if self.part == "forget" else ""

    def questions(self, number: int) -> list[Question]:
        """The question that the row names, if it does."""
        if self.prompt is None or self.target is None:
            return []
        return [
            Question(row=number, group=self.part, prompt=self.prompt, target=self.target.strip())
        ]


def first_problem(error: ValidationError) -> str:
    """Word the first problem of a pydantic error in one clause."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"the field {field!r} is missing"
    if problem["type"] == "extra_forbidden":
        return f"the field {field!r} is not known"
    return f"{field}: {message}" if field else message
