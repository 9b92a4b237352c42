"""The whole input of a run: base, method, config and request, from YAML and flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, field_validator

from hubedit.errors import RecipeError, near_misses
from hubedit.rows import Part, Row, first_problem

RECIPE_FILE = "hubedit.yaml"
PARTS: tuple[str, ...] = get_args(Part)
"""The parts of a request to forget, in the order in which their rows stand."""


class Reference(Row):
    """Where a request comes from, as who makes the edit says; all of it is published.

    Name a role and no person.
    """

    ticket: str | None = Field(None, min_length=1, max_length=200, description="its number")
    ground: str | None = Field(
        None, min_length=1, max_length=200, description="legal ground, such as Art. 17 GDPR"
    )
    requester: str | None = Field(
        None, min_length=1, max_length=200, description="role of who asks, such as data subject"
    )


class Recipe(Row):
    """What to change, in which base, by which method.

    `request` is where its rows are (a file, or a dataset of the Hub), or that by the part of the
    request, or the rows themselves.
    """

    base: str = Field(min_length=1, description="repository[@revision], or a directory")
    plugin: str = Field(min_length=1, description="name of the method")
    config: dict[str, Any] = Field({}, description="settings of the method")
    request: str | dict[str, str] | tuple[dict[str, Any], ...] = Field(
        description="source of rows, or one for each part, or the rows"
    )
    reader: str | None = Field(
        None, description="how rows are written, such as zsre-answers; default: each tells its own"
    )
    corpus: str | None = Field(None, description="text for statistics: a file, or hf://datasets/…")
    to: str | None = Field(None, description="repository to push to; default {user}/{base}-edited")
    seed: int = Field(0, ge=0, lt=2**63, description="the one source of randomness")
    device: str = Field("cpu", description="where the method works, such as cpu or cuda:0")
    dtype: str = Field("float32", pattern="^(float32|float16|bfloat16)$")
    disclose: Literal["full", "none"] | None = Field(
        None,
        description="what is published of a request; default: none of what is forgotten",
    )
    reference: Reference | None = Field(
        None, description="where the request comes from: ticket, ground, requester; published"
    )
    allow_embeddings: bool = Field(
        False, description="let an undisclosed change touch embeddings and head, which can tell it"
    )
    chat: bool = Field(False, description="ask prompts through the tokenizer's chat template")
    threads: int | None = Field(None, ge=1, description="threads of the run; default: as torch")

    @field_validator("request", mode="before")
    @classmethod
    def _known_parts(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            _refuse_unknown(value)
        return value


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the keys of a recipe file; relative paths in it are taken from where it lies.

    Raises:
        RecipeError: it is missing, is not YAML, is not a mapping, or has an unknown key.
    """
    if not path.is_file():
        raise RecipeError(
            f"there is no recipe {path}; write one (base, plugin, request), or give --base, "
            "--plugin and --prompt, --subject, --target"
        )
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path} must hold keys such as base, plugin and request")
    keys = dict(value)
    if "method" in keys and "plugin" not in keys:
        keys["plugin"] = keys.pop("method")
    for key in keys:
        if key not in Recipe.model_fields:
            raise RecipeError(
                f"{path} has an unknown key {key!r}; {near_misses(str(key), Recipe.model_fields)}"
            )
    for key in ("request", "corpus", "base"):
        given = keys.get(key)
        if isinstance(given, str) and (path.parent / given).exists():
            keys[key] = str(path.parent / given)
    request = keys.get("request")
    if isinstance(request, Mapping):
        keys["request"] = _beside(path.parent, request) if _by_part(request) else [request]
    return keys


def _by_part(request: Mapping[Any, Any]) -> bool:
    """Whether a mapping gives sources by part, as its names or nearly so tell; else it is a row."""
    return any(difflib.get_close_matches(str(name), PARTS, cutoff=0.75) for name in request) and (
        all(isinstance(source, str) for source in request.values())
    )


def _beside(folder: Path, sources: Mapping[str, str]) -> dict[str, str]:
    """Sources of a recipe, whose relative paths are taken from where it lies."""
    return {
        part: str(folder / source) if (folder / source).exists() else source
        for part, source in sources.items()
    }


def _refuse_unknown(names: Iterable[Any]) -> None:
    for name in names:
        if name not in PARTS:
            raise ValueError(f"no part is called {name!r}; {near_misses(str(name), PARTS)}")


def parse_request(given: Sequence[str]) -> str | dict[str, str] | None:
    """Read what a flag names: one SOURCE, or PART=SOURCE for each part; None if nothing.

    Raises:
        RecipeError: a part is not known or named twice, or parts and whole requests are mixed.
    """
    found: dict[str, str] = {}
    for text in given:
        part, sign, source = text.partition("=")
        if not sign or (part not in PARTS and Path(text).exists()):
            if len(given) > 1:
                raise RecipeError(
                    f"of several sources each is named with its part, such as {PARTS[0]}={text}"
                )
            return text
        try:
            _refuse_unknown([part])
        except ValueError as error:
            raise RecipeError(str(error)) from error
        if part in found or not source:
            wrong = "is named twice" if part in found else "has no source"
            raise RecipeError(f"the part {part} {wrong}; give one file or dataset for each part")
        found[part] = source
    return found or None


def make_recipe(keys: Mapping[str, Any]) -> Recipe:
    """Check the keys of a recipe, wherever they came from.

    Raises:
        RecipeError: a key is missing or of the wrong type; says how to give it.
    """
    flags = {"base": "--base REPO", "plugin": "--plugin NAME", "request": "--request FILE"}
    for key, flag in flags.items():
        if not keys.get(key):
            raise RecipeError(
                f"the recipe lacks {key}; give {flag}, or write {key}: in {RECIPE_FILE}"
            )
    try:
        return Recipe.model_validate(
            {key: value for key, value in keys.items() if value is not None}
        )
    except ValidationError as error:
        raise RecipeError(f"the recipe is not usable: {first_problem(error)}") from error


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` pairs; values are YAML, so numbers, true, null and lists are typed.

    Raises:
        RecipeError: a pair has no `=`.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.strip():
            raise RecipeError(f"--set {pair!r} is not of the form key=value, such as --set layer=5")
        try:
            settings[key.strip()] = _typed(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {pair!r}: the value cannot be read ({error})") from error
    return settings


def _typed(text: str) -> Any:
    """Read a value as YAML, and also numbers such as 1e-2, which YAML 1.1 takes for text."""
    value = yaml.safe_load(text) if text.strip() else ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value
