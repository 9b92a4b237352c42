"""Where a push goes: what is there now, and which state an edit for it starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hubedit.editions import Edition, OpenHub, edition_at, open_edition
from hubedit.errors import NotOnHubError, RecipeError
from hubedit.hub import Hub
from hubedit.manifest import CARD_FILE, STACK_FILE, UNLISTED, Stack
from hubedit.places import HubPlace, Place


@dataclass(frozen=True)
class Target:
    """Where a push goes, as it was when the run began."""

    repo: str
    head: str | None
    """Commit of main, or None where the repository does not exist yet."""
    edition: Edition | None
    """What main holds, if it is a stack of edits."""
    weights: bool
    """Whether main holds weights, so that a delta alone may not go there."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digests of what main holds beside an edit's own files."""


def find_target(repo: str | None, base: str, hub: Hub) -> Target:
    """Look at the repository a push goes to; `repo` None stands for `{user}/{base}-edited`.

    Raises:
        AccessError: there is no token that may write.
    """
    user = hub.user()
    name = repo or f"{user}/{_base_name(base)}-edited"
    if "/" not in name:
        name = f"{user}/{name}"
    try:
        head = hub.commit(name)
    except NotOnHubError:
        return Target(name, None, None, weights=False)
    place = HubPlace(hub, name, head)
    names = place.files()
    weights = any("/" not in path and path.endswith(".safetensors") for path in names)
    if STACK_FILE in names:
        return Target(name, head, edition_at(place, lambda: hub), weights)
    others = [path for path in names if path not in UNLISTED and path != CARD_FILE]
    return Target(name, head, None, weights, place.sha256(others))


def chained(stack: Stack, target: Target) -> Stack:
    """The stack as the revision that follows what the target holds now.

    `version` goes on from there, reverts included; `previous` is the digest of its hubedit.json.
    """
    if target.edition is None:
        return stack.model_copy(update={"version": max(stack.height, 1), "previous": None})
    version = target.edition.stack.version + 1
    return stack.model_copy(
        update={"version": version, "previous": stack_digest(target.edition.place)}
    )


def stack_digest(place: Place) -> str | None:
    """SHA-256 (hex) of a place's hubedit.json, or None if it has none."""
    if STACK_FILE not in place.files():
        return None
    return hashlib.sha256(place.read(STACK_FILE)).hexdigest()


def _base_name(base: str) -> str:
    path = Path(base).expanduser()
    name = path.resolve().name if path.is_dir() else base.partition("@")[0].rpartition("/")[2]
    return name.removesuffix("-edited")


def open_start(base: str, hub: OpenHub, target: Target | None) -> Edition:
    """The edition an edit starts from: the base, or what the target already stacks on that base.

    Raises:
        RecipeError: the target holds something that this base cannot follow.
    """
    start = open_edition(base, hub)
    if target is None:
        return start
    if target.edition is not None:
        there = target.edition.stack
        if start.stack.edits and start.stack.edits == there.edits[: start.stack.height]:
            return target.edition
        if there.base.digest != start.stack.base.digest:
            raise RecipeError(
                f"{target.repo} stacks edits of {there.base.title}, and the base here is "
                f"{start.stack.base.title} with other files; use --base {there.base.repo or 'DIR'}"
                f"{'@' + there.base.commit if there.base.commit else ''}, or --to another "
                "repository"
            )
        if start.stack.edits:
            raise RecipeError(
                f"{base} and {target.repo} hold different stacks of edits; "
                f"use --base {target.repo}, or --to another repository"
            )
        return target.edition
    if target.weights:
        wanted = {file.path: file.sha256 for file in start.stack.base.files}
        if any(target.files.get(path) != digest for path, digest in wanted.items()):
            raise RecipeError(
                f"{target.repo} holds the weights of another model than {base}; use --to "
                "another repository"
            )
    return start
