"""Taking the newest edit back, with the proof that the bits are those from before."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hubedit.editions import Edition
from hubedit.errors import RecipeError, VerificationError
from hubedit.manifest import StackEntry, result_digest, touched_tensors, written_files
from hubedit.places import checkpoint
from hubedit.revisions import finished_directory, write_revision


@dataclass(frozen=True)
class Proof:
    """That without the newest edit every tensor has the bits from before it."""

    entry: StackEntry
    result: str
    """Result digest of what is left, recomputed from the bytes."""
    tensors: tuple[tuple[str, str, str], ...]
    """For each tensor and file of the edit: its name, its digest with the edit, and without."""

    def markdown(self) -> str:
        """The proof as the text of a pull request."""
        lines = [
            f"Takes `{self.entry.name}` back.",
            "",
            "Each tensor that it touched was rebuilt from the base and the edits that stay. Its "
            "digest is the one that was recorded before the edit:",
            "",
            "| Tensor or file | With the edit | Without it |",
            "|:--|:--|:--|",
            *(f"| `{name}` | `{after}` | `{before}` |" for name, after, before in self.tensors),
            "",
            f"Result digest of what is left: `{self.result}`, which is the one recorded as parent "
            f"of `{self.entry.name}`.",
            "",
            "Check it: `hubedit verify REPO@refs/pr/N --deep`.",
        ]
        return "\n".join(lines) + "\n"


def prove(edition: Edition) -> Proof:
    """Rebuild what stays without the newest edit, and compare it with what was recorded.

    Raises:
        RecipeError: there is no edit to take back.
        VerificationError: the bits are not those recorded before the edit.
    """
    stack = edition.stack
    if not stack.edits:
        raise RecipeError(f"{edition.place.title} has no edit to take back; it is its base")
    newest = edition.manifests[-1]
    stored, left = checkpoint(edition.base), edition.overlay(stack.height - 1)
    there = edition.presence(stack.height - 1)
    rebuilt = {**left, **there.added}
    tensors, wrong = [], []
    for record in newest.tensors:
        before: str | None = None
        if record.name in rebuilt:
            before = rebuilt[record.name].sha256()
        elif record.name in stored.tensors and record.name not in there.dropped:
            before = stored.read(record.name).sha256()
        tensors.append((record.name, record.after or "no such tensor", before or "no such tensor"))
        if before != record.before:
            wrong.append(f"{record.name} is not what was recorded before {newest.edit}")
    below = edition.manifests[:-1]
    files = edition.file_digests(stack.height - 1)
    for file in newest.files:
        tensors.append((file.path, file.after, files.get(file.path, "no such file")))
        if files.get(file.path) != file.before:
            wrong.append(f"{file.path} is not what was recorded before {newest.edit}")
    touched = touched_tensors(below)
    result = result_digest(
        stack.base.files,
        {name: (touched[name][0], tensor.sha256()) for name, tensor in rebuilt.items()}
        | {name: (touched[name][0], None) for name in there.dropped - set(there.added)},
        written_files(below),
    )
    if result != newest.parent:
        wrong.append(f"the result digest is {result}, recorded is {newest.parent}")
    if wrong:
        raise VerificationError(edition.place.title, wrong)
    return Proof(stack.edits[-1], result, tuple(tensors))


@contextmanager
def reverted(edition: Edition, output: Path | None = None) -> Iterator[Path]:
    """Write the revision without the newest edit; to a scratch directory if none is given."""
    if output is not None:
        _write(edition, output)
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="hubedit-revert-") as scratch:
        _write(edition, Path(scratch, "revision"))
        yield Path(scratch, "revision")


def _write(edition: Edition, output: Path) -> None:
    with finished_directory(output) as work:
        write_revision(work, edition, edition.stack.height - 1)
