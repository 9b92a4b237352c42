"""What is published of a request: all of it, or counts and keyed hashes that prove it later."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hubedit.artifacts import cache_home, canonical_json
from hubedit.errors import OutputError, RequestError
from hubedit.manifest import Manifest, RequestRecord
from hubedit.probes import Answer, Probe
from hubedit.requests import of_row, request_digest
from hubedit.rows import ForgetRow, Row, common_type
from hubedit.secret import KEY_BYTES, secret, write_private

SHORTEST = 12
"""Single words shorter than this are not looked for: they occur by chance."""

SHORTEST_NAME = 7
"""The same for texts of several words, such as a person's name."""


def canonical(row: Row) -> bytes:
    """A row as the bytes that are hashed: canonical JSON of its fields that are not defaults."""
    return canonical_json(row.model_dump(mode="json", exclude_defaults=True))


def keyed_hash(key: bytes, content: bytes) -> str:
    """HMAC-SHA-256 (hex)."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def edit_key(parent: str, rows: Sequence[Row]) -> bytes:
    """The key of one edit: HMAC-SHA-256 of its start and request under this machine's secret.

    The same edit has the same key on this machine, and nobody else can make it.

    Args:
        parent: result digest of the state the edit starts from.
        rows: the request.
    """
    content = f"{parent}:{request_digest(rows)}".encode()
    return hmac.new(secret(cache_home()), content, hashlib.sha256).digest()


def key_file(edit: str, result: str) -> Path:
    """Where the key of an edit is kept: hex digits, readable by the user alone."""
    return cache_home() / "keys" / f"{edit}-{result[:16]}.key"


def keep_key(edit: str, result: str, key: bytes) -> Path:
    """Write the key of an edit to its place; returns the file."""
    path = key_file(edit, result)
    write_private(path, key.hex().encode() + b"\n")
    return path


def carry_key(old: Manifest, new: Manifest) -> None:
    """Keep the key of an edit that has got another name under that one too, if it is here."""
    path = key_file(old.edit, old.result)
    if path.is_file():
        keep_key(new.edit, new.result, read_key(path))


def read_key(path: Path) -> bytes:
    """Read a key file.

    Raises:
        RequestError: it does not exist or holds no key.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise RequestError(f"the key file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RequestError(f"{path} holds no key: it must be {2 * KEY_BYTES} hex digits") from error
    if len(key) != KEY_BYTES:
        raise RequestError(f"{path} holds no key: it must be {2 * KEY_BYTES} hex digits")
    return key


def request_record(
    rows: Sequence[Row], key: bytes | None, chat: str | None = None
) -> RequestRecord:
    """What a manifest says of a request: its rows, or with a key counts and keyed hashes alone."""
    kind = common_type(rows).__name__
    parts = dict(sorted(Counter(row.part_name for row in rows).items()))
    if key is None:
        return RequestRecord(
            type=kind,
            count=len(rows),
            parts=parts,
            chat=chat,
            sha256=request_digest(rows),
            rows=tuple(row.model_dump(mode="json", exclude_defaults=True) for row in rows),
            in_words=tuple(words for row in rows if (words := row.describe())),
        )
    return RequestRecord(
        type=kind,
        count=len(rows),
        parts=parts,
        chat=chat,
        sha256=keyed_hash(key, b"\n".join(canonical(row) for row in rows)),
        disclosed=False,
        hashes=tuple(sorted({keyed_hash(key, canonical(row)) for row in rows})),
    )


def matches(record: RequestRecord, rows: Sequence[Row], key: bytes) -> bool:
    """Whether rows are the request that an undisclosed edit was made for."""
    counted = {"tokens": record.tokens}
    return request_record(rows, key, record.chat).model_copy(update=counted) == record


def extents(rows: Sequence[Row], count: Callable[[str], int]) -> dict[str, int]:
    """Tokens of each part of a request to forget, by a count of one text; empty of another.

    Raises:
        RequestError: a text cannot be counted; names its row.
    """
    found: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        if isinstance(row, ForgetRow):
            with of_row(number):
                found[row.part] += count(row.content)
    return dict(sorted(found.items()))


def redacted(probes: Iterable[Probe]) -> list[Probe]:
    """Probes without their words: which row and group, probabilities, and whether they passed."""
    return [
        probe.model_copy(
            update={
                "prompt": None,
                "target": None,
                "before": _wordless(probe.before),
                "after": _wordless(probe.after),
            }
        )
        for probe in probes
    ]


def _wordless(answer: Answer) -> Answer:
    return answer.model_copy(update={"answer": None, "p_answer": None})


def needles(rows: Sequence[Row]) -> set[bytes]:
    """The words of a request that are looked for: in clear, base64 and hex."""
    words = {text.strip() for row in rows for text in row.words() if _telling(text.strip())}
    words -= {row.part_name for row in rows}
    return {needle for word in words for needle in _disguises(word.encode())}


def refuse_leaks(
    files: Mapping[str, bytes], rows: Sequence[Row], plain: Mapping[str, bytes] | None = None
) -> None:
    """Look for the words of a request in what is about to be written, in clear, base64 and hex.

    Args:
        files: by their paths.
        rows: the request.
        plain: what a file of the same path says whatever the request is. The file may hold a word
            as often as that; by default nothing.

    Raises:
        OutputError: a file holds some of it; names the file and not the words.
    """
    sought, said = needles(rows), plain or {}
    for path, content in files.items():
        always = said.get(path, b"")
        if any(
            needle in content and content.count(needle) > always.count(needle) for needle in sought
        ):
            raise OutputError(
                f"{path} would hold words of the undisclosed request, so nothing was written; "
                "publish them on purpose with --disclose full, or report the method"
            )


def _telling(text: str) -> bool:
    return len(text) >= (SHORTEST_NAME if " " in text else SHORTEST)


def _disguises(word: bytes) -> list[bytes]:
    """A text as it is, in hex, and in base64 at each of its three alignments."""
    found = [word, word.hex().encode(), word.hex().upper().encode()]
    for shift in range(3):
        code = base64.b64encode(b"\0" * shift + word)
        first = (0, 2, 3)[shift]
        last = len(word + b"\0" * shift) // 3 * 4
        if last - first >= SHORTEST_NAME:
            found.append(code[first:last])
    return found
