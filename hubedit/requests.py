"""Rows that say what to change, and the readers that find them in files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hubedit.errors import RequestError


class Row(BaseModel):
    """One item of a request; frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
        """The target as it continues the prompt: with one leading space."""
        return " " + self.target.strip()

    def describe(self) -> str:
        """Say the change in words."""
        before = f"“{self.true_target.strip()}” becomes " if self.true_target else ""
        return f"“{self.text}” → {before}“{self.target.strip()}”"


def fact_from_counterfact(record: Mapping[str, Any]) -> dict[str, Any]:
    """Read one CounterFact record (Meng et al. 2022) into the fields of `FactEdit`."""
    rewrite = record["requested_rewrite"]
    neighbours = [
        {"prompt": prompt, "target": rewrite["target_true"]["str"]}
        for prompt in record.get("neighborhood_prompts", [])
    ]
    return {
        "case_id": record.get("case_id"),
        "prompt": rewrite["prompt"],
        "subject": rewrite["subject"],
        "target": rewrite["target_new"]["str"],
        "true_target": rewrite["target_true"]["str"],
        "paraphrases": record.get("paraphrase_prompts", []),
        "neighbours": neighbours,
        "attributes": record.get("attribute_prompts_same_subject", []),
    }


def _from_subject_in_prompt(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn a prompt that names the subject verbatim into one with `{}`."""
    prompt, subject = fields.get("prompt"), fields.get("subject")
    if not isinstance(prompt, str) or not isinstance(subject, str) or "{}" in prompt:
        return fields
    if not subject.strip():
        return fields
    times = prompt.count(subject)
    if times != 1:
        found = "does not name" if times == 0 else f"names {times} times"
        raise ValueError(
            f"the prompt {prompt!r} {found} the subject {subject!r}; write {{}} where the "
            "subject goes"
        )
    return {**fields, "prompt": prompt.replace(subject, "{}")}


def fact_edits(records: Iterable[Mapping[str, Any]], source: str = "the request") -> list[FactEdit]:
    """Read rows from plain records or CounterFact records.

    Raises:
        RequestError: a record is not usable (names its number and field), or there is none.
    """
    rows = []
    for number, record in enumerate(records, start=1):
        where = f"row {number} of {source}"
        if not isinstance(record, Mapping):
            raise RequestError(
                f"{where} is not an object with fields such as prompt, subject, target"
            )
        try:
            if "requested_rewrite" in record:
                fields = fact_from_counterfact(record)
            else:
                fields = {key: value for key, value in record.items() if key != "split"}
            rows.append(FactEdit.model_validate(_from_subject_in_prompt(fields)))
        except KeyError as error:
            raise RequestError(f"{where} lacks the field {error}") from error
        except ValidationError as error:
            raise RequestError(f"{where}: {first_problem(error)}") from error
        except ValueError as error:
            raise RequestError(f"{where}: {error}") from error
    if not rows:
        raise RequestError(f"{source} holds no rows; give at least one fact to change")
    return rows


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


def read_records(path: Path) -> list[Mapping[str, Any]]:
    """Read the records of a `.json` (a list or one object) or `.jsonl` file.

    Raises:
        RequestError: the file is missing, is not UTF-8 JSON, or has another suffix.
    """
    if not path.is_file():
        raise RequestError(f"the request file {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error}") from error
    if path.suffix == ".jsonl":
        records = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise RequestError(f"line {number} of {path} is not JSON: {error}") from error
        return records
    if path.suffix == ".json":
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise RequestError(f"{path} is not JSON: {error}") from error
        return value if isinstance(value, list) else [value]
    raise RequestError(
        f"{path.name} has the suffix {path.suffix!r}; requests are .jsonl or .json files"
    )


def request_digest(rows: Sequence[Row]) -> str:
    """SHA-256 (hex) of the rows in canonical JSON."""
    canonical = json.dumps(
        [row.model_dump(mode="json") for row in rows],
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


ROW_TYPES: dict[str, type[Row]] = {"FactEdit": FactEdit}
