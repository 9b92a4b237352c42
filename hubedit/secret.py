"""What this machine alone knows: a secret that keys hashes, and files that only its user reads."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def keyed(home: Path, content: bytes) -> str:
    """HMAC-SHA-256 (hex) under this machine's secret.

    It is the same whenever it is asked for here, and nobody else can test guesses by it.

    Args:
        home: where hubedit keeps things.
        content: what is hashed.
    """
    return hmac.new(secret(home), content, hashlib.sha256).hexdigest()


def secret(home: Path) -> bytes:
    """This machine's secret, made when it is first needed: `keys/secret` below `home`."""
    path = home / "keys" / "secret"
    if not path.is_file():
        write_private(path, secrets.token_bytes(KEY_BYTES), new=True)
    return path.read_bytes()


def write_private(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write a file that only the user may read; `new` leaves one alone that is there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        if new:
            os.link(draft, path)
        else:
            os.replace(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
