"""A dataset repository that holds artifacts: what is in it, fetched and checked, added to."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubedit.artifacts import ABOUT, KEY, ArtifactStore, Held
from hubedit.errors import ManifestError, NotOnHubError
from hubedit.hub import Hub, Pushed, split_revision
from hubedit.markdown import cell, nbytes
from hubedit.refusals import worded
from hubedit.shards import sha256_files

INDEX = "artifacts.json"
CARD = "README.md"
FOLDER = "artifacts"
FORMAT = 1
SHELVES = "HUBEDIT_ARTIFACTS"
"""Environment variable: dataset repositories to look in before computing, parted by commas."""


@dataclass(frozen=True)
class Shelf:
    """A dataset repository at a commit, and the artifacts that its index lists, by address."""

    hub: Hub
    repo: str
    commit: str | None
    index: Mapping[str, Mapping[str, Any]]

    @classmethod
    def open(cls, text: str, hub: Hub, *, new: bool = False) -> Shelf:
        """Open `REPO[@REV]`.

        Args:
            text: of a dataset repository.
            hub: where it lies.
            new: take one that does not exist, or holds no artifacts yet, as empty.

        Raises:
            NotOnHubError: there is no such dataset repository, or it holds no artifacts.
            ManifestError: its index is not understood.
        """
        repo, revision = split_revision(text)
        try:
            with worded(f"dataset {repo}", hub.url):
                found = hub.api.dataset_info(repo, revision=revision)
        except NotOnHubError:
            if new:
                return cls(hub, repo, None, {})
            raise
        commit = str(found.sha)
        if INDEX not in {sibling.rfilename for sibling in found.siblings or ()}:
            if new:
                return cls(hub, repo, commit, {})
            raise NotOnHubError(
                f"the dataset {repo} has no {INDEX}, so it holds no artifacts; name one that "
                "`hubedit stats push` wrote to"
            )
        shelf = cls(hub, repo, commit, {})
        return cls(hub, repo, commit, _read_index(shelf.pull([INDEX]) / INDEX, repo))

    def pull(self, paths: Sequence[str]) -> Path:
        """Download files; returns the directory that holds them under their paths."""
        from huggingface_hub import snapshot_download

        with worded(f"dataset {self.repo}", self.hub.url):
            folder = snapshot_download(
                self.repo,
                repo_type="dataset",
                revision=self.commit,
                allow_patterns=list(paths),
                endpoint=self.hub.url,
                token=self.hub.token,
                cache_dir=self.hub.cache,
            )
        return Path(folder)

    def fetch(self, address: str, into: Path) -> bool:
        """Put the files of one artifact into a directory, checked; False if it is not listed.

        Raises:
            ManifestError: a file is not the one that the index lists.
        """
        entry = self.index.get(address)
        if entry is None:
            return False
        files: Mapping[str, Mapping[str, Any]] = entry["files"]
        paths = {name: f"{FOLDER}/{address}/{name}" for name in files}
        folder = self.pull(list(paths.values()))
        here = {name: folder / path for name, path in paths.items()}
        missing = [name for name, path in here.items() if not path.is_file()]
        digests = sha256_files([path for name, path in here.items() if name not in missing])
        wrong = [name for name, path in here.items() if digests.get(path) != files[name]["sha256"]]
        if wrong or ArtifactStore.address(entry["key"]) != address:
            raise ManifestError(
                f"{', '.join(wrong) or 'the key'} of artifact {address[:12]} in {self.repo} is not "
                f"what its {INDEX} lists; nothing was taken from it"
            )
        for name, path in here.items():
            shutil.copyfile(path, into / name)
        (into / KEY).write_bytes(json.dumps(entry["key"], sort_keys=True, indent=1).encode())
        return True

    def push(self, held: Sequence[Held], *, private: bool) -> Pushed | None:
        """Add artifacts by one commit, with index and card; None if all are there already.

        Raises:
            AccessError: the token may not write there.
        """
        from huggingface_hub import CommitOperationAdd

        fresh = [one for one in held if one.address not in self.index]
        if not fresh:
            return None
        index = {**self.index, **{one.address: _entry(one) for one in fresh}}
        sent: dict[str, bytes | str] = {
            f"{FOLDER}/{one.address}/{name}": str(one.path / name)
            for one in fresh
            for name in index[one.address]["files"]
        }
        listed = {"format": FORMAT, "artifacts": index}
        text = json.dumps(listed, indent=1, sort_keys=True, ensure_ascii=False)
        sent |= {INDEX: (text + "\n").encode(), CARD: card(self.repo, index).encode()}
        self.hub.user()  # says what to do where there is no token
        with worded(f"dataset {self.repo}", self.hub.url):
            api = self.hub.api
            api.create_repo(self.repo, repo_type="dataset", private=private, exist_ok=True)
            parent = self.commit or api.dataset_info(self.repo).sha
            info = api.create_commit(
                self.repo,
                [CommitOperationAdd(path, content) for path, content in sorted(sent.items())],
                repo_type="dataset",
                commit_message=f"add {len(fresh)} artifact(s)",
                parent_commit=parent,
            )
        return Pushed(self.repo, str(info.oid), str(info.commit_url), None)


def lookup(hub: Callable[[], Hub]) -> Callable[[str, Path], bool] | None:
    """What an `ArtifactStore` asks for what it lacks: the repositories that the environment names.

    Args:
        hub: opens the Hub when it is needed.

    Returns:
        None where the environment names none.
    """
    named = [name.strip() for name in os.environ.get(SHELVES, "").split(",") if name.strip()]
    opened: list[Shelf] = []

    def fetch(address: str, into: Path) -> bool:
        if not opened:
            opened.extend(Shelf.open(name, hub()) for name in named)
        return any(shelf.fetch(address, into) for shelf in opened)

    return fetch if named else None


def _read_index(path: Path, repo: str) -> Mapping[str, Mapping[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ManifestError(
                f"{INDEX} of {repo} has format {found['format']}, and this hubedit reads "
                f"{FORMAT}; upgrade hubedit"
            )
        artifacts: dict[str, dict[str, Any]] = found["artifacts"]
        names = [name for entry in artifacts.values() for name in entry["files"]]
        keys = [entry["key"]["kind"] for entry in artifacts.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{INDEX} of {repo} is damaged: {error}") from error
    odd = [name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)]
    if odd or not all(isinstance(kind, str) for kind in keys):
        raise ManifestError(f"{INDEX} of {repo} lists what no artifact has: {odd[:1]}")
    return artifacts


def _entry(held: Held) -> dict[str, Any]:
    """What the index says of an artifact: its key, what it was made of, its files."""
    paths = [
        path
        for path in sorted(held.path.iterdir())
        if path.is_file() and path.name != KEY and path.suffix in (".json", ".safetensors", ".png")
    ]
    digests = sha256_files(paths)
    files = {path.name: {"size": path.stat().st_size, "sha256": digests[path]} for path in paths}
    return {"key": dict(held.key), "about": held.facts(ABOUT), "files": files}


def card(repo: str, index: Mapping[str, Mapping[str, Any]]) -> str:
    """The card of a repository of artifacts: what is in it and how it is used; no clock."""
    rows = []
    for address, entry in sorted(index.items(), key=lambda item: (*_order(item[1]), item[0])):
        key, about = entry["key"], entry["about"]
        size = sum(file["size"] for file in entry["files"].values())
        shown = (about.get("base") or key.get("model", "")[:12], key.get("module", ""))
        quality = (about.get("quality", ""), about.get("source", ""))
        cells = [address[:12], key["kind"], *shown, *quality, nbytes(size)]
        rows.append("| " + " | ".join(cell(text, 120) for text in cells) + " |")
    kinds = sorted({str(entry["key"]["kind"]) for entry in index.values()})
    return "\n".join(
        [
            "---",
            "tags:",
            *(f"- {json.dumps(tag)}" for tag in ["hubedit", *kinds]),
            "---",
            "",
            "# Artifacts for hubedit",
            "",
            "What is costly to compute about a model and can be used again, stored under the",
            "SHA-256 of all that it depends on. `artifacts.json` lists every file with its digest.",
            "",
            "```bash",
            f"hubedit stats pull {repo}",
            f"export {SHELVES}={repo}   # or: looked up before anything is computed",
            "```",
            "",
            "| artifact | kind | model | module | quality | texts | size |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _order(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry["about"].get("base", "")), str(entry["key"].get("module", ""))


__all__ = ["SHELVES", "Shelf", "card", "lookup"]
