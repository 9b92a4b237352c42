"""Stacks whose edits lie on another start than before: one taken out below, or a newer base."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hubedit.context import Talk
from hubedit.editions import Edition, Presence
from hubedit.errors import RecipeError, near_misses
from hubedit.manifest import StackEntry
from hubedit.places import base_record, open_place
from hubedit.replaying import Replayed, Stacked, replay
from hubedit.revisions import finished_directory, write_restacked, write_weights


@dataclass(frozen=True)
class Restacked:
    """The revision that follows an edition: `height` edits as they are, the others anew."""

    edition: Edition
    top: Stacked
    height: int
    replayed: Sequence[Replayed]
    removed: StackEntry | None = None

    def markdown(self) -> str:
        """What was done, as the text of a pull request."""
        before = self.edition.stack
        if self.removed is not None:
            lines = [f"Takes `{self.removed.name}` back, from under what follows it.", ""]
        else:
            lines = [f"Puts the stack on `{self.top.base.title}`.", ""]
            lines += [f"It lay on `{before.base.title}`.", ""]
        if self.replayed:
            lines += ["| Edit | Was | Tensors | Questions |", "|:--|:--|:--|:--|"]
            lines += [f"| `{one.manifest.edit}` | {_row(one)} |" for one in self.replayed]
            lines.append("")
        lines += [
            f"Result digest: `{self.top.result}`; before: `{before.result}`.",
            "",
            "Check it: `hubedit verify REPO@refs/pr/N --deep`.",
        ]
        return "\n".join(lines) + "\n"


def _row(one: Replayed) -> str:
    if one.manifest.replayed is None:
        return f"`{one.was.name}` | made anew | asked"
    tensors = ", ".join(f"`{name}`" for name in one.other)
    return " | ".join(
        [
            f"`{one.was.name}`",
            f"other bits: {tensors}" if tensors else "the same bits",
            "asked again" if one.manifest.replayed.asked else "not asked",
        ]
    )


def find_edit(edition: Edition, name: str) -> int:
    """The index of an edit by its name or its number from the bottom.

    Raises:
        RecipeError: there is none; says what there is.
    """
    names = [entry.name for entry in edition.stack.edits]
    if name in names:
        return names.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return int(name) - 1
    numbers = f"1 to {len(names)}" if names else "none"
    raise RecipeError(
        f"{edition.place.title} has no edit {name!r}; it has {numbers}: {near_misses(name, names)}"
    )


def without(edition: Edition, index: int, *, ask: bool, talk: Talk) -> Restacked:
    """Take one edit out and put those above it on what is left.

    Args:
        edition: a stack of edits.
        index: of the edit, from 0 at the bottom.
        ask: whether the questions of those above are asked again.
        talk: is told what goes on.

    Raises:
        RecipeError: an edit above cannot be put there, and why.
    """
    top = Stacked.of(edition, index)
    keep = range(index + 1, edition.stack.height)
    replayed = replay(edition, keep, top, ask=ask, talk=talk)
    return Restacked(edition, top, index, replayed, edition.stack.edits[index])


def onto(edition: Edition, base: str, *, ask: bool, talk: Talk) -> Restacked:
    """Put all edits on another base whose tensors, where they touch it, are the same.

    Args:
        edition: a stack of edits.
        base: `DIR` or `REPO[@REV]`.
        ask: whether their questions are asked again.
        talk: is told what goes on.

    Raises:
        RecipeError: it is no plain model, or a tensor that an edit touches is another there.
    """
    place = open_place(base, edition.hub)
    top = Stacked(base_record(place), place, [], {}, {})
    drifted = drift(edition, top)
    if drifted:
        shown = ", ".join(drifted[:5]) + (f" and {len(drifted) - 5} more" * (len(drifted) > 5))
        raise RecipeError(
            f"{place.title} has other values of {shown}, which the edits were made on; make them "
            "anew there with --refit"
        )
    replayed = replay(edition, range(edition.stack.height), top, ask=ask, talk=talk)
    return Restacked(edition, top, 0, replayed)


def drift(edition: Edition, top: Stacked) -> list[str]:
    """The tensors and files of a new base that differ from those the edits start from, sorted."""
    stored, digests = top.stored, top.file_digests()
    different: set[str] = set()
    seen: set[str] = set()
    for manifest in edition.manifests:
        for tensor in manifest.tensors:
            if tensor.name in seen:
                continue
            seen.add(tensor.name)
            there = stored.read(tensor.name).sha256() if tensor.name in stored.tensors else None
            if there != tensor.before:
                different.add(tensor.name)
        for file in manifest.files:
            if file.path not in seen and digests.get(file.path) != file.before:
                different.add(file.path)
            seen.add(file.path)
    return sorted(different)


@contextmanager
def written(made: Restacked, output: Path | None = None) -> Iterator[Path]:
    """Write the revision; to a scratch directory if none is given."""
    if output is not None:
        _write(made, output)
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="hubedit-restack-") as scratch:
        _write(made, Path(scratch, "revision"))
        yield Path(scratch, "revision")


def _write(made: Restacked, output: Path) -> None:
    top = made.top
    with finished_directory(output) as work:
        if made.edition.stack.weights:
            write_weights(work, top.place, top.tensors, top.texts, Presence())
        above = [(one.manifest, one.files) for one in made.replayed]
        write_restacked(work, made.edition, top.base, made.height, above)
