"""What a method may look at before training, to make its loss and its rule; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import hubedit
from hubedit_unlearn.parts import Parts

Rule = Callable[[int, Mapping[str, float]], bool]
"""Whether training ends after a step, by what each term gave in it."""


@dataclass(frozen=True)
class Setting:
    """The model, the request and the run."""

    model: hubedit.EditableModel
    parts: Parts
    run: hubedit.RunContext
