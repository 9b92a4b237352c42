"""The YAML header of a README: read, checked, and turned into tags to filter lists by."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

MAX_HEADER = 256 * 1024
MAX_NODES = 50_000
RELATIONS = ("adapter", "finetune", "merge", "quantized")
_LICENSES = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m "
    "bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 "
    "epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl "
    "gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 "
    "llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by "
    "ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense "
    "wtfpl zlib"
)
LICENSES = frozenset(_LICENSES.split())

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
    licenses = _texts(data.get("license"))
    if set(licenses) - LICENSES:
        errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES))}]')
    return errors + _index_errors(data.get("model-index"))


def _index_errors(index: Any) -> list[str]:
    """Return what is wrong with the scores: each result names a task, a dataset and metrics."""
    if index is None:
        return []
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for at, model in enumerate(index):
        here = f"model-index[{at}]"
        if not isinstance(model, dict) or not isinstance(model.get("results"), list):
            errors.append(f'"{here}.results" is required')
            continue
        if not isinstance(model.get("name"), str):
            errors.append(f'"{here}.name" is required')
        for number, result in enumerate(model["results"]):
            place = f"{here}.results[{number}]"
            errors += _missing(result, place, {"task": ("type",), "dataset": ("type", "name")})
            metrics = result.get("metrics") if isinstance(result, dict) else None
            if not isinstance(metrics, list) or not metrics:
                errors.append(f'"{place}.metrics" is required')
                continue
            for count, metric in enumerate(metrics):
                wanted = {f"metrics[{count}]": ("type", "value")}
                errors += _missing({f"metrics[{count}]": metric}, place, wanted)
    return errors


def _missing(held: Any, place: str, wanted: Mapping[str, tuple[str, ...]]) -> list[str]:
    found = held if isinstance(held, dict) else {}
    return [
        f'"{place}.{key}.{name}" is required'
        for key, names in wanted.items()
        for name in names
        if not isinstance(found.get(key), dict) or found[key].get(name) is None
    ]


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
