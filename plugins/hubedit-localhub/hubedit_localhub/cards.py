"""The YAML header of a README: read, checked, and turned into tags to filter lists by."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped,unused-ignore]

MAX_HEADER = 256 * 1024
MAX_NODES = 50_000
RELATIONS = ("adapter", "finetune", "merge", "quantized")

_HEADER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_TEXT = (
    "library_name",
    "pipeline_tag",
    "license_name",
    "license_link",
    "base_model_relation",
    "pretty_name",
)
_TEXTS = ("tags", "datasets", "base_model", "language", "metrics", "license", "new_version")
_PREFIXED = {"license": "license:", "datasets": "dataset:", "base_model": "base_model:"}


class Card(NamedTuple):
    """A README's header as JSON values, the text below it, and what is wrong with the header."""

    data: dict[str, Any]
    body: str
    errors: list[str]
    header: bool = True


class _TooLarge(ValueError):
    pass


def _plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Turn YAML values into JSON values; aliases count each time they are used."""
    budget[0] -= 1
    if budget[0] < 0 or depth > 32:
        raise _TooLarge
    if isinstance(value, dict):
        return {str(key): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item, budget, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _type_errors(data: dict[str, Any]) -> list[str]:
    errors = [
        f'"{key}" must be a string'
        for key in _TEXT
        if data.get(key) is not None and not isinstance(data[key], str)
    ]
    for key in _TEXTS:
        value = data.get(key)
        listed = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(item, str) for item in listed):
            errors.append(f'"{key}" must be a string or a list of strings')
    relation = data.get("base_model_relation")
    if isinstance(relation, str) and relation not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of {", ".join(RELATIONS)}')
    index = data.get("model-index")
    if index is not None and not (
        isinstance(index, list)
        and all(
            isinstance(model, dict) and isinstance(model.get("results"), list) for model in index
        )
    ):
        errors.append('"model-index" must be a list of models, each with "results"')
    return errors


def read_card(text: str) -> Card:
    """Read a README; a header that cannot be used is empty and `errors` says why."""
    found = _HEADER.match(text)
    if not found:
        return Card({}, text, [], header=False)
    body = text[found.end() :].lstrip("\r\n")
    if len(found[1]) > MAX_HEADER:
        return Card({}, body, ["the YAML header is too large"])
    try:
        loaded = yaml.safe_load(found[1])
        data = _plain(loaded if loaded is not None else {}, [MAX_NODES])
    except yaml.YAMLError as error:
        return Card({}, body, [f"YAML: {' '.join(str(error).split())}"])
    except (_TooLarge, RecursionError, ValueError, TypeError):
        return Card({}, body, ["the YAML header is too large or nested too deeply"])
    if not isinstance(data, dict):
        return Card({}, body, ["the YAML header must be a mapping"])
    return Card(data, body, _type_errors(data))


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]


def tags_of(data: dict[str, Any], files: list[str], model_type: str | None) -> list[str]:
    """Return the tags the Hub derives: from the header, the file names and the model's type."""
    tags = _texts(data.get("library_name"))
    if any(name.endswith(".safetensors") for name in files):
        tags.append("safetensors")
    if model_type:
        tags.append(model_type)
    tags += (
        _texts(data.get("tags")) + _texts(data.get("pipeline_tag")) + _texts(data.get("language"))
    )
    for key, prefix in _PREFIXED.items():
        tags += [prefix + value for value in _texts(data.get(key))]
    relation = data.get("base_model_relation")
    if isinstance(relation, str):
        tags += [f"base_model:{relation}:{value}" for value in _texts(data.get("base_model"))]
    return list(dict.fromkeys([*tags, "region:us"]))
