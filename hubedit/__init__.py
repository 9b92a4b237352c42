"""hubedit: change what a Hugging Face model knows, and prove exactly what you changed.

The public names below resolve when they are first used, so that `import hubedit` loads nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubedit.artifacts import cache_home
    from hubedit.errors import (
        CollapseError,
        ConfigError,
        DeltaError,
        HubEditError,
        HubError,
        MethodError,
        RequestError,
        UnsupportedModelError,
    )
    from hubedit.evaluating import evaluate
    from hubedit.hookspecs import Endpoint, SmallModel, SmallRequest, hookimpl
    from hubedit.method import Config, Corpus, Earlier, EditableModel, Method, RunContext
    from hubedit.plugins import endpoint
    from hubedit.reading import Reading
    from hubedit.rows import (
        FactEdit,
        ForgetConcept,
        ForgetQA,
        ForgetRow,
        ForgetText,
        ProbePrompt,
        Row,
    )
    from hubedit.run import apply, load
    from hubedit.updates import Columns, LowRank, Replace, Rows, Sparse, Update

__version__ = "0.1.0"

_HOMES = {
    "artifacts": ("cache_home",),
    "errors": (
        "CollapseError",
        "ConfigError",
        "DeltaError",
        "HubEditError",
        "HubError",
        "MethodError",
        "RequestError",
        "UnsupportedModelError",
    ),
    "evaluating": ("evaluate",),
    "hookspecs": ("Endpoint", "SmallModel", "SmallRequest", "hookimpl"),
    "method": ("Config", "Corpus", "Earlier", "EditableModel", "Method", "RunContext"),
    "plugins": ("endpoint",),
    "reading": ("Reading",),
    "rows": (
        "FactEdit",
        "ForgetConcept",
        "ForgetQA",
        "ForgetRow",
        "ForgetText",
        "ProbePrompt",
        "Row",
    ),
    "run": ("apply", "load"),
    "updates": ("Columns", "LowRank", "Replace", "Rows", "Sparse", "Update"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CollapseError",
    "Columns",
    "Config",
    "ConfigError",
    "Corpus",
    "DeltaError",
    "Earlier",
    "EditableModel",
    "Endpoint",
    "FactEdit",
    "ForgetConcept",
    "ForgetQA",
    "ForgetRow",
    "ForgetText",
    "HubEditError",
    "HubError",
    "LowRank",
    "Method",
    "MethodError",
    "ProbePrompt",
    "Reading",
    "Replace",
    "RequestError",
    "Row",
    "Rows",
    "RunContext",
    "SmallModel",
    "SmallRequest",
    "Sparse",
    "UnsupportedModelError",
    "Update",
    "apply",
    "cache_home",
    "endpoint",
    "evaluate",
    "hookimpl",
    "load",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(
            f"module 'hubedit' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )
    return getattr(import_module(f"hubedit.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
