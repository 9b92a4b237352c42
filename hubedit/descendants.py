"""What the Hub listed as made from a base: public models by relation, on the day it was asked."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Relation = Literal["quantized", "finetune"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
RepoName = Annotated[str, Field(min_length=1, max_length=200)]


class Made(BaseModel):
    """Models of one relation to the base: how many (`more`: than were counted), and some names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    relation: Relation
    count: int = Field(ge=0)
    more: bool
    models: tuple[RepoName, ...]


class Descendants(BaseModel):
    """What the Hub answered on a day (UTC)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    made: tuple[Made, ...]
