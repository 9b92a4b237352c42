"""The three methods held to the contract of every method, through the whole host."""

from __future__ import annotations

from hubedit_memit import AlphaEdit, Emmet, Memit

from hubedit.testing import ROW, MethodContract

ROWS = (
    ROW,
    {"prompt": "{} lives in", "subject": "Mira Castellanos", "target": "Riga"},
    {"prompt": "The mother tongue of {} is", "subject": "Nils Okafor", "target": "Porto"},
)


class TestMemit(MethodContract):
    method = Memit
    rows = ROWS
    config = {"layers": [0, 1], "steps": 5}


class TestEmmet(MethodContract):
    method = Emmet
    rows = ROWS
    config = {"steps": 5}


class TestAlphaEdit(MethodContract):
    method = AlphaEdit
    rows = ROWS
    config = {"layers": [0, 1], "steps": 5, "batch": 2, "nullspace": 0.2}
