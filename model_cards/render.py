"""Compare the pages of this gallery with what hubedit renders; `--write` renders them anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from hubedit.card import human_text, render_card
from hubedit.diff import render_diff
from hubedit.manifest import CARD_FILE, STACK_FILE, Manifest, Stack

GALLERY = Path(__file__).parent


def cases() -> list[Path]:
    """The folders of the gallery."""
    return sorted(path.parent for path in GALLERY.glob(f"*/{STACK_FILE}"))


def pages(case: Path) -> Iterator[tuple[Path, str]]:
    """Every rendered file of a case with the text that it should have.

    What people wrote on a card is taken from the card that is there, as a push does.
    """
    about = json.loads((case / "case.json").read_text("utf-8"))
    stack = Stack.from_json((case / STACK_FILE).read_bytes())
    manifests = []
    for entry in stack.edits:
        folder = case / entry.folder
        manifest = Manifest.from_json((folder / "manifest.json").read_bytes())
        lines = (folder / "probes.jsonl").read_text("utf-8").split("\n")
        probes = [json.loads(line) for line in lines if line]
        manifests.append(manifest)
        yield folder / "DIFF.md", render_diff(manifest, probes, layers=about["layers"])
    card = case / CARD_FILE
    human = human_text(card.read_text("utf-8")) if card.exists() else ""
    yield (
        card,
        render_card(stack, manifests, repo=about["repo"], weights=stack.weights, human=human),
    )


def main(arguments: list[str]) -> int:
    """Check or write every page; the exit status says whether all are as they should be."""
    stale = 0
    for case in cases():
        for path, text in pages(case):
            if path.exists() and path.read_bytes() == text.encode():
                continue
            if arguments == ["--write"]:
                path.write_bytes(text.encode())
                sys.stdout.write(f"wrote {path.relative_to(GALLERY)}\n")
            else:
                stale += 1
                sys.stdout.write(f"stale: {path.relative_to(GALLERY)}\n")
    return min(stale, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
