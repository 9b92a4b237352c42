"""Edits made anew on another base, by the methods and requests that their manifests record."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hubedit import run
from hubedit.context import Talk
from hubedit.editions import Edition, OpenHub, edits_of
from hubedit.errors import RecipeError
from hubedit.manifest import Manifest
from hubedit.places import base_record, open_place
from hubedit.plugins import Plugins
from hubedit.recipe import make_recipe
from hubedit.replaying import Replayed, Stacked
from hubedit.restacking import Restacked


def refit_onto(
    edition: Edition, base: str, hub: OpenHub, talk: Talk, plugins: Plugins | None = None
) -> Restacked:
    """Run every edit of a stack again on another base, each on top of the one before.

    Args:
        edition: a stack of edits.
        base: `DIR` or `REPO[@REV]`.
        hub: opens the Hub.
        talk: is told what goes on.
        plugins: those installed, if not given.

    Raises:
        RecipeError: an edit does not disclose its request, so that nobody but its author can make
            it again.
        HubEditError: whatever its method or plugin refuses.
    """
    place = open_place(base, hub)
    recipes = [_recipe(manifest) for manifest in edition.manifests]
    with tempfile.TemporaryDirectory(prefix="hubedit-refit-") as scratch:
        start, last = base, None
        for number, keys in enumerate(recipes, start=1):
            talk.log(f"edit {number} of {len(recipes)}: {edition.manifests[number - 1].edit}")
            job = run.prepare(make_recipe({**keys, "base": start}), hub, plugins=plugins)
            last = run.apply(job, Path(scratch, str(number)), talk=talk).directory
            start = str(last)
        if last is None:
            return Restacked(edition, Stacked(base_record(place), place, [], {}, {}), 0, [])
        made = edits_of(str(last), hub, base)
        found = []
        for was, entry, manifest in zip(
            edition.stack.edits, made.stack.edits, made.manifests, strict=True
        ):
            beside = f"{entry.folder}/"
            files = {
                path.removeprefix(beside): made.place.read(path)
                for path in made.place.files()
                if path.startswith(beside) and path != f"{beside}manifest.json"
            }
            found.append(Replayed(was, manifest, files))
        top = Stacked(made.stack.base, place, list(made.manifests), made.overlay(), made.texts())
    return Restacked(edition, top, 0, found)


def _recipe(manifest: Manifest) -> dict[str, object]:
    """The keys of a recipe that makes an edit again, but for its base.

    Raises:
        RecipeError: its request is not disclosed.
    """
    request = manifest.request
    if request.rows is None:
        raise RecipeError(
            f"{manifest.edit} does not disclose what was asked, so only its author can make it "
            "again: `hubedit apply` with the request on the new base"
        )
    return {
        "plugin": manifest.method.name,
        "config": manifest.config,
        "request": list(request.rows),
        "seed": manifest.seed,
        "chat": request.chat is not None,
        "disclose": "full",
        "dtype": manifest.environment.dtype,
    }
