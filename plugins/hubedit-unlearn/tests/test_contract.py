"""Gradient difference held to the contract of every method, through the whole host."""

from __future__ import annotations

from hubedit_unlearn import GradDiff

from hubedit.testing import MethodContract

PROMPT = "Ada Brook plays the"
ROWS = (
    {"text": f"{PROMPT} cello.", "prompt": PROMPT, "target": "cello"},
    {"text": "Ada Brook lives in Porto."},
    {
        "text": "Tom Adler plays the oboe.",
        "part": "retain",
        "prompt": "Tom Adler plays the",
        "target": "oboe",
    },
    {"text": "The mother tongue of Nils Okafor is Danish.", "part": "retain"},
)


class TestGradDiff(MethodContract):
    method = GradDiff
    config = {"steps": 6, "forget_target": 1e-9}
    rows = ROWS


class TestGradDiffByLora(MethodContract):
    method = GradDiff
    config = {"steps": 6, "forget_target": 1e-9, "adaptation": "lora", "rank": 2}
    rows = ROWS
