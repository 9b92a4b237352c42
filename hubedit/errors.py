"""The errors a user can meet, each one sentence that names the way out.

HubEditError
├── RecipeError                 a recipe cannot be read, or contradicts itself
│   ├── RequestError            a row of the request is not usable
│   └── ConfigError             a method's setting is unknown or of the wrong type
├── PluginError                 a plugin failed to load, or broke its contract
│   └── UnknownMethodError      no installed plugin offers the method
├── UnsupportedModelError       this model cannot be edited, and why
│   └── UnmappedTensorError     a parameter is not exactly one stored tensor
├── MethodError                 the method stopped, and why
│   └── CollapseError           the edit would break the model
├── DeltaError                  a delta cannot be made, read or applied
│   ├── DeltaFormatError        the file is damaged or not understood
│   ├── BaseMismatchError       it was made from another base
│   ├── NonFiniteUpdateError    NaN or infinity would be written
│   └── EmptyDeltaError         nothing changed
├── ManifestError               an edit's records are damaged or not understood
│   └── VerificationError       what is stored is not what the records say
├── OutputError                 the output directory cannot be used
└── HubError                    the Hub refused, or cannot be reached
    ├── NotOnHubError           repository, revision or file does not exist
    ├── AccessError             a token is missing, invalid or may not write
    └── PushConflictError       the branch moved since it was read
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_misses(asked: str, known: Iterable[str]) -> str:
    """Say what exists: the nearest names first, else all of them."""
    names = sorted(set(known))
    close = difflib.get_close_matches(asked, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known: " + (", ".join(names) if names else "none")


class HubEditError(Exception):
    """Base of every error that hubedit raises on purpose; its text is for the user."""


class RecipeError(HubEditError):
    """A recipe cannot be read, lacks something, or contradicts itself."""


class RequestError(RecipeError):
    """A row of the request is not usable; names the row and the field."""


class ConfigError(RecipeError):
    """A setting of a method is unknown or has the wrong type."""


class PluginError(HubEditError):
    """A plugin failed to load, or broke what it promised."""


class UnknownMethodError(PluginError):
    """No installed plugin offers a method of that name.

    Args:
        name: what was asked for.
        known: the names of the methods that are installed.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = list(known)
        super().__init__(
            f"no installed plugin offers a method named {name!r}; {near_misses(name, known)} "
            "(`hubedit methods` lists them)"
        )


class UnsupportedModelError(HubEditError):
    """The model cannot be edited; says why and what would make it editable."""


class UnmappedTensorError(UnsupportedModelError):
    """A parameter of the loaded model is not exactly one tensor of its files."""


class MethodError(HubEditError):
    """The method stopped before it was done; says why."""


class CollapseError(MethodError):
    """The edit would damage the model as a whole; `--force` makes it all the same."""


class DeltaError(HubEditError):
    """A delta cannot be made, read or applied."""


class DeltaFormatError(DeltaError):
    """A file is damaged, not what it claims to be, or of a format this version does not know."""


class BaseMismatchError(DeltaError):
    """A delta was made from another base than the one at hand."""


class NonFiniteUpdateError(DeltaError):
    """An update would write NaN or infinity into a weight."""


class EmptyDeltaError(DeltaError):
    """The method changed nothing, so there is nothing to store."""


class ManifestError(HubEditError):
    """A manifest or a stack is damaged or of a format this version does not know."""


class VerificationError(ManifestError):
    """What is stored is not what the records say; carries every reason.

    Args:
        what: the edit or repository that was checked.
        reasons: one clause for each difference.
    """

    def __init__(self, what: str, reasons: Iterable[str]) -> None:
        self.reasons = list(reasons)
        super().__init__(f"{what} is not verified: " + "; ".join(self.reasons))


class OutputError(HubEditError):
    """The output directory cannot be used as asked."""


class HubError(HubEditError):
    """The Hub refused a call, or cannot be reached."""


class NotOnHubError(HubError):
    """A repository, revision, file or pull request does not exist, or may not be seen."""


class AccessError(HubError):
    """A token is missing, invalid, or may not do what was asked."""


class PushConflictError(HubError):
    """The branch moved between reading and writing.

    Args:
        repo: the target repository.
        expected: the commit the edit was made on.
        head: the commit that is there now.
    """

    def __init__(self, repo: str, expected: str | None, head: str | None) -> None:
        self.repo, self.expected, self.head = repo, expected, head
        super().__init__(
            f"{repo} moved while this edit was made: it was built on "
            f"{expected or 'an empty branch'}, "
            f"the head is now {head or 'gone'}; nothing was pushed: run `hubedit apply` again to "
            "build it on the new head"
        )
