"""A browser's session: a signed cookie that lets its user read pages, and nothing else."""

from __future__ import annotations

import time

from hubedit_localhub.accounts import Account
from hubedit_localhub.store import Store

LIFETIME_SECONDS = 7 * 24 * 3600


def session_name(store: Store) -> str:
    """Return the cookie's name; cookies know no ports, so every root has its own."""
    return f"hubedit_{store.name}"


def session_value(store: Store, user: str) -> str:
    """Return a cookie for `user`."""
    until = int(time.time()) + LIFETIME_SECONDS
    return f"{user}:{until}:{store.accounts.sign('session', user, until)}"


def session_account(store: Store, value: str) -> Account | None:
    """Return the account a cookie stands for, or None if it is not ours or too old."""
    user, _, rest = value.partition(":")
    until, _, signed = rest.partition(":")
    if not until.isdigit() or not store.accounts.check(signed, "session", user, until):
        return None
    return Account(user, "read") if int(until) > time.time() else None
