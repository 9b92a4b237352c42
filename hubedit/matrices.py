"""The record of a small matrix that a method shows."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAP_SIDE = 64
"""Rows and columns, at most."""


class MapRecord(BaseModel):
    """A small matrix of numbers that a method showed, such as where in the model a fact was found.

    `values` holds a line for each of `rows`: a number for each of `columns`, separated by spaces.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    caption: str
    rows: tuple[str, ...] = Field(min_length=1, max_length=MAP_SIDE)
    columns: tuple[str, ...] = Field(min_length=1, max_length=MAP_SIDE)
    values: tuple[str, ...]

    @model_validator(mode="after")
    def _whole(self) -> MapRecord:
        if len(self.values) != len(self.rows):
            raise ValueError(f"{len(self.values)} lines of values for {len(self.rows)} rows")
        for row in self.matrix:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} values for {len(self.columns)} columns")
            if not all(map(math.isfinite, row)):
                raise ValueError("a value is not finite")
        return self

    @property
    def matrix(self) -> list[list[float]]:
        """The values as numbers."""
        return [[float(value) for value in line.split(" ")] for line in self.values]
