"""Fixtures for the tests of the local Hub."""

from hubedit_localhub.fixtures import localhub

__all__ = ["localhub"]
