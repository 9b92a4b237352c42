"""The word for layers that nobody names: `auto`, and the types of settings that may say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

Auto = Literal["auto"]
"""The published layer for the family and depth, else the one that a stored trace names, else one a
third of the way up."""


def _is_block(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _one(value: Any) -> Any:
    """`auto` for null too, as older manifests have it.

    Raises:
        ValueError: it is neither that nor the number of a block.
    """
    if value is None or value == "auto":
        return "auto"
    if not _is_block(value):
        raise ValueError("name a block by its number, from 0, or say auto")
    return value


def _some(value: Any) -> Any:
    """`auto` for null too, as older manifests have it.

    Raises:
        ValueError: it is neither that nor a list of numbers of blocks.
    """
    if value is None or value == "auto":
        return "auto"
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(map(_is_block, value)):
        raise ValueError("list blocks by their numbers, from 0, such as [3,4,5], or say auto")
    return value


OneLayer = Annotated[int | Auto, BeforeValidator(_one)]
"""A block, or `auto`."""

SomeLayers = Annotated[tuple[int, ...] | Auto, BeforeValidator(_some)]
"""Blocks in rising order, or `auto`."""
