"""The four baselines held to the contract of every method, through the whole host."""

from __future__ import annotations

from hubedit_ft import Ft, FtL, FtM, Lora

from hubedit.testing import ROW, MethodContract

ROWS = (ROW, {"prompt": "{} lives in", "subject": "Mira Castellanos", "target": "Riga"})


class TestFt(MethodContract):
    method = Ft
    rows = ROWS
    config = {"layers": [0, 1], "learning_rate": 0.01, "steps": 5}


class TestFtL(MethodContract):
    method = FtL
    rows = ROWS
    config = {"learning_rate": 0.01, "steps": 5, "max_change": 0.3}


class TestFtM(MethodContract):
    method = FtM
    rows = ROWS
    config = {"learning_rate": 0.01, "steps": 5, "bias": False, "layers": [1]}


class TestLora(MethodContract):
    method = Lora
    rows = ROWS
    config = {"steps": 5, "rank": 2, "modules": "mlp"}
