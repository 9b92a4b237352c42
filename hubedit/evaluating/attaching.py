"""A measurement of forgetting written into the edit that it is of: manifest, review page, card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hubedit import disclosure, revisions
from hubedit.card import render_card
from hubedit.discretion import said_of_any
from hubedit.editions import Edition
from hubedit.errors import HubEditError, OutputError, RequestError
from hubedit.manifest import CARD_FILE, STACK_FILE, Manifest
from hubedit.measured import Forgetting
from hubedit.probes import COMES_BACK, NO_ORACLE, OTHERWISE, from_jsonl
from hubedit.requests import request_digest
from hubedit.rows import Row


def check_attachable(edit: str, edition: Edition) -> None:
    """Refuse what a measurement cannot be written into.

    Raises:
        RequestError: it is no directory of an edit, or its newest edit forgets nothing.
    """
    if not Path(edit).is_dir():
        raise RequestError(
            f"a measurement is attached to a directory that `hubedit apply -o DIR` wrote, before "
            f"it is pushed; {edit} is none"
        )
    if not edition.manifests or edition.manifests[-1].method.kind != "unlearn":
        raise RequestError(f"the newest edit of {edit} does not forget, so nothing is attached")


def check_request(manifest: Manifest, rows: Sequence[Row]) -> None:
    """Refuse a request that is another than the edit's.

    Raises:
        RequestError: it is, or this machine has no key that could tell.
    """
    if manifest.request.disclosed:
        same = manifest.request.sha256 == request_digest(rows)
    else:
        key = disclosure.key_file(manifest.edit, manifest.result)
        same = disclosure.matches(manifest.request, rows, disclosure.read_key(key))
    if not same:
        raise RequestError(
            f"the rows given are not the request of {manifest.edit}; what is attached to an edit "
            "is measured on its own request"
        )


def attach(directory: Path, edition: Edition, found: Forgetting, rows: Sequence[Row]) -> None:
    """Write a measurement into the newest edit of a directory; all else stays as it is.

    Args:
        directory: where the edition lies.
        edition: as it is there.
        found: the measurement.
        rows: what was asked, none of which may appear.

    Raises:
        OutputError: what would be written quotes an undisclosed request.
    """
    before = edition.manifests[-1]
    manifest = before.model_copy(
        update={"forgetting": found, "not_tested": _still_open(before.not_tested, found)}
    )
    folder = edition.stack.edits[-1].folder
    probes = from_jsonl(edition.place.read(f"{folder}/probes.jsonl").decode("utf-8"))
    with revisions.finished_directory(directory, replace=True) as work:
        for path in edition.place.files():
            if path not in (CARD_FILE, STACK_FILE):
                _linked(directory / path, work / path)
        written = revisions.write_measured(work, edition, manifest, probes)
        if not manifest.request.disclosed:
            try:
                plain = said_of_any(manifest, probes)
                always = {f"{folder}/{name}": content for name, content in plain.items()}
                said = Manifest.from_json(plain["manifest.json"])
                card = render_card(
                    edition.stack,
                    [*edition.manifests[:-1], said],
                    repo="",
                    weights=edition.stack.weights,
                )
                disclosure.refuse_leaks(
                    {path: (work / path).read_bytes() for path in written},
                    rows,
                    {**always, CARD_FILE: card.encode()},
                )
            except HubEditError as error:
                raise OutputError(f"the measurement was not attached: {error}") from error


def _still_open(sentences: Sequence[str], found: Forgetting) -> tuple[str, ...]:
    """What was not tested, once a measurement has been made."""
    others = [one for one in sentences if one not in (COMES_BACK, OTHERWISE, NO_ORACLE)]
    left = [OTHERWISE if found.curves else COMES_BACK]
    left += [] if found.oracle else [NO_ORACLE]
    return (*others[:-1], *left, *others[-1:])


def _linked(source: Path, target: Path) -> None:
    """The same file in another directory, without a second copy where the system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)
