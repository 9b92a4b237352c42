"""Nudge held to the contract of every method."""

from hubedit_nudge import Nudge

from hubedit.testing import MethodContract


class TestNudge(MethodContract):
    method = Nudge
