"""ROME held to the contract of every method, through the whole host."""

from __future__ import annotations

from hubedit_rome import Rome

from hubedit.testing import MethodContract


class TestRome(MethodContract):
    method = Rome
