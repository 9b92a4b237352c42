"""Every operation held to the contract of every method, on all three architectures."""

from __future__ import annotations

from typing import ClassVar

from hubedit_kn import Kn

from hubedit.testing import ROW, MethodContract

OTHER = {"prompt": "{} lives in", "subject": "Mira Castellanos", "target": "Riga"}
KNOWN = {**{key: value for key, value in ROW.items() if key != "target"}, "true_target": "cello"}
GONE = {"prompt": "{} plays the", "subject": "Tom Adler", "true_target": "oboe"}


class TestUpdate(MethodContract):
    method = Kn
    rows = (ROW, OTHER)
    config: ClassVar = {"steps": 3}


class TestErase(MethodContract):
    method = Kn
    rows = (KNOWN, GONE)
    config: ClassVar = {"operation": "erase", "steps": 3, "enough": 0.2}
