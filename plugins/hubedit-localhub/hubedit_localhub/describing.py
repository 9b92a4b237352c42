"""What the Hub says about a repository: its commit, its card, its files, its tensors."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pygit2

from hubedit_localhub.cards import read_card, tags_of
from hubedit_localhub.history import Entry, History, iso
from hubedit_localhub.objects import Objects
from hubedit_localhub.store import Repo
from hubedit_localhub.tensors import counted

_BOTH = (
    "author cardData createdAt disabled downloads downloadsAllTime gated lastModified likes "
    "private resourceGroup sha siblings tags trendingScore usedStorage "
)
_MODELS = (
    "baseModels childrenModelCount config evalResults gguf inference inferenceProviderMapping "
    "library_name mask_token model-index pipeline_tag safetensors spaces transformersInfo "
    "widgetData"
)
_DATASETS = "citation description mainSize paperswithcode_id"
EXPANDS = {
    "models": frozenset((_BOTH + _MODELS).split()),
    "datasets": frozenset((_BOTH + _DATASETS).split()),
}


def _sibling(entry: Entry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    found: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.pointer:
        found["lfs"] = {
            "size": entry.size,
            "sha256": entry.pointer.oid,
            "pointerSize": entry.pointer_size,
        }
    return found


def _config(history: History, commit: pygit2.Commit) -> dict[str, Any]:
    try:
        loaded = json.loads(history.text(commit, "config.json") or "{}")
    except (ValueError, RecursionError):
        return {}
    kept = ("architectures", "model_type", "quantization_config")
    return {key: loaded[key] for key in kept if key in loaded} if isinstance(loaded, dict) else {}


@lru_cache(maxsize=512)
def _described(objects: Objects, repo: Repo, uid: str, sha: str) -> dict[str, Any]:
    """Return what a commit alone says; `uid` keeps a namesake created later apart."""
    history = History(repo)
    commit = history.resolve(sha)
    entries = [entry for entry in history.walk(commit.tree, "", True) if not entry.directory]
    readme = history.text(commit, "README.md")
    data = read_card(readme).data if readme else {}
    config = _config(history, commit)
    model_type = config.get("model_type") if isinstance(config.get("model_type"), str) else None
    return {
        "entries": entries,
        "lastModified": iso(commit.commit_time),
        "cardData": data,
        "config": config,
        "safetensors": counted(objects, entries) if repo.kind == "models" else None,
        "tags": tags_of(data, [entry.path for entry in entries], model_type),
    }


def describe(
    objects: Objects, repo: Repo, history: History, commit: pygit2.Commit, blobs: bool = False
) -> dict[str, Any]:
    """Return what the Hub says about a repository at a commit."""
    kept = repo.settings()
    found = _described(objects, repo, kept["uid"], str(commit.id))
    data, entries = found["cardData"], found["entries"]
    result: dict[str, Any] = {
        "_id": kept["uid"],
        "id": repo.id,
        "author": repo.namespace,
        "sha": str(commit.id),
        "lastModified": found["lastModified"],
        "createdAt": kept["createdAt"],
        "private": kept["private"],
        "gated": kept["gated"],
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": found["tags"],
        "cardData": data,
        "siblings": [_sibling(entry, blobs) for entry in entries],
        "usedStorage": sum(entry.size for entry in entries),
    }
    if repo.kind == "models":
        result |= {"modelId": repo.id, "config": found["config"]}
        if found["safetensors"]:
            result["safetensors"] = found["safetensors"]
        for key in ("pipeline_tag", "library_name"):
            if isinstance(data.get(key), str):
                result[key] = data[key]
        if isinstance(data.get("model-index"), list):
            result["model-index"] = data["model-index"]
    return result


def base_models(card: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says a model was made from, and how; None if it says nothing."""
    bases = card.get("base_model")
    listed = [base for base in (bases if isinstance(bases, list) else [bases]) if base]
    if not listed:
        return None
    relation = card.get("base_model_relation") or ("merge" if len(listed) > 1 else "finetune")
    return {"relation": relation, "models": [{"id": base} for base in listed]}
