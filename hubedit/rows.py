"""The types of rows a request is made of: what to change, forget or keep, and what to ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Group = Literal["rewrite", "paraphrase", "neighbour", "attribute", "forget", "retain", "normal"]
Part = Literal["forget", "retain", "normal", "holdout"]


def continued(prompt: str, target: str) -> str:
    """A target as it continues a prompt: after a space, unless the prompt ends in white space."""
    return target.strip() if prompt[-1:].isspace() else " " + target.strip()


class Row(BaseModel):
    """One item of a request; frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_record(cls, fields: Mapping[str, Any]) -> Self:
        """Make a row of a record's fields; a family of types picks the one they belong to.

        Raises:
            ValidationError: the fields are not those of the type.
        """
        return cls.model_validate(fields)

    @property
    def part_name(self) -> str:
        """Which part of the request the row belongs to, such as forget or retain."""
        return "rows"

    def words(self) -> Iterator[str]:
        """Every text in the row, of whatever field and however deep."""
        return _texts(self.model_dump(mode="json"))

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
    edit, `relation` its name in a data set. `paraphrases` are whole prompts that should follow the
    edit; `neighbours` (other subjects) and `attributes` (other facts of the same subject) are
    prompts that should not.
    """

    prompt: str = Field(description="a prompt with `{}` where the subject goes")
    subject: str = Field(description="what the fact is about")
    target: str = Field(description="the answer the edited model gives")
    true_target: str | None = Field(None, description="the answer before the edit")
    paraphrases: tuple[str, ...] = Field((), description="whole prompts that follow the edit")
    neighbours: tuple[ProbePrompt, ...] = Field((), description="prompts on others that must stay")
    attributes: tuple[ProbePrompt, ...] = Field((), description="its other facts that must stay")
    case_id: str | None = Field(None, description="a name for the row")
    relation: str | None = Field(
        None,
        exclude_if=lambda name: name is None,  # so that a row without one keeps its digest
        description="the relation as the data set calls it, such as P1303; tells facts apart",
    )

    @field_validator("neighbours", "attributes", mode="before")
    @classmethod
    def _plain_prompts(cls, value: Any) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [{"prompt": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("case_id", "relation", mode="before")
    @classmethod
    def _name_text(cls, value: Any) -> Any:
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


class ForgetRow(Row, ABC):
    """What the model shall lose or keep: a text, or a question with its answer.

    A method that takes `ForgetRow` is given both, whichever the fields of each record say.

    Parts: `forget` shall be lost and `retain` kept; `normal` has nothing to do with either and
    shall stay as it is; `holdout` was never trained on, and is compared with alone.
    """

    part: Part = Field("forget", description="forget, retain, normal or holdout")

    @classmethod
    def from_record(cls, fields: Mapping[str, Any]) -> Self:
        """A `ForgetQA` if the record has a question, else a `ForgetText`.

        Raises:
            ValidationError: the fields are not those of the type.
        """
        if cls is not ForgetRow:
            return cls.model_validate(fields)
        kind: type[Any] = ForgetQA if "question" in fields else ForgetText
        row: Self = kind.model_validate(fields)
        return row

    @property
    def part_name(self) -> str:
        """forget, retain, normal or holdout."""
        return self.part

    @property
    @abstractmethod
    def content(self) -> str:
        """The whole text of the row as a model reads it, prompt included."""

    def _asked(self, number: int, pairs: Sequence[tuple[str, str]]) -> list[Question]:
        """Questions of the row's part; a row that is held out is not asked."""
        if self.part == "holdout":
            return []
        return [
            Question(row=number, group=self.part, prompt=prompt, target=answer.strip())
            for prompt, answer in pairs
        ]


class ForgetText(ForgetRow):
    """A text that the model shall lose (`part` forget) or keep (`part` retain).

    `prompt` and `target` make it a question: before forgetting, the model continues the prompt
    with the target.
    """

    text: str = Field(min_length=1, description="the text")
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
    def content(self) -> str:
        """The text."""
        return self.text

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
        return self._asked(number, [(self.prompt, self.target)])


class ForgetQA(ForgetRow):
    """A question whose answer the model shall lose or keep.

    The model reads `question` as it stands, and the answer continues it. Scores use the other
    fields: the same question and the same answer in other words, wrong answers of the same form;
    `refusals` are what the model may say instead.
    """

    question: str = Field(min_length=1, description="the question, as the model is asked it")
    answer: str = Field(min_length=1, description="the answer that the model knows")
    paraphrases: tuple[str, ...] = Field((), description="the question in other words")
    paraphrased_answer: str | None = Field(
        None, min_length=1, description="the answer in other words"
    )
    perturbed_answers: tuple[str, ...] = Field(
        (), description="wrong answers of the same form as the answer"
    )
    refusals: tuple[str, ...] = Field((), description="what may be said instead of the answer")

    @model_validator(mode="after")
    def _usable(self) -> ForgetQA:
        for name, value in self:
            texts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(text, str) and not text.strip() for text in texts):
                raise ValueError(f"{name} holds an empty text; leave it out or fill it")
        return self

    @property
    def content(self) -> str:
        """The question with its answer."""
        return self.question + continued(self.question, self.answer)

    def with_prompts(self, write: Callable[[str], str]) -> Self:
        """The row with its question and paraphrases written anew."""
        fields = {
            "question": write(self.question),
            "paraphrases": tuple(write(question) for question in self.paraphrases),
        }
        return self.model_copy(update=fields)

    def describe(self) -> str:
        """Say what to forget; what is retained goes without saying."""
        if self.part != "forget":
            return ""
        return f"forget “{self.answer.strip()}” as the answer to “{self.question.strip()}”"

    def questions(self, number: int) -> list[Question]:
        """The question and its paraphrases."""
        asked = (self.question, *self.paraphrases)
        return self._asked(number, [(question, self.answer) for question in asked])


class ForgetConcept(Row):
    """A concept that the model shall lose or keep; `keywords` are the words that it goes by."""

    concept: str = Field(min_length=1, description="what it is, in a few words")
    keywords: tuple[str, ...] = Field((), description="words and names that belong to it")
    part: Part = Field(
        "forget",
        exclude_if=lambda part: part == "forget",  # so that a row that names none keeps its digest
        description="forget, retain, normal or holdout",
    )

    @model_validator(mode="after")
    def _usable(self) -> ForgetConcept:
        if not all(text.strip() for text in (self.concept, *self.keywords)):
            raise ValueError("the concept or a keyword is empty; say what to forget")
        return self

    @property
    def part_name(self) -> str:
        """forget, retain, normal or holdout."""
        return self.part

    @property
    def content(self) -> str:
        """The concept."""
        return self.concept

    def describe(self) -> str:
        """Name the concept to forget; what is retained goes without saying."""
        return f"forget the concept “{self.concept.strip()}”" if self.part == "forget" else ""


def common_type(rows: Sequence[Row]) -> type[Row]:
    """The type of all rows, or the nearest one that holds them all; there must be some."""
    return next(
        kind
        for kind in type(rows[0]).__mro__
        if issubclass(kind, Row) and all(isinstance(row, kind) for row in rows)
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


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
