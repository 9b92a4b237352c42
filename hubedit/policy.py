"""The policy of a reviewer: which edits are allowed, whatever else is in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hubedit.errors import RecipeError, near_misses
from hubedit.manifest import Manifest, PluginRecord
from hubedit.probes import Probe
from hubedit.rows import Group, first_problem
from hubedit.trust import installed

POLICY_FILE = "hubedit-policy.yaml"


class Gate(BaseModel):
    """Bounds on one score after the edit: a share in [0, 1] of a group's questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Group = Field(description="of the questions: rewrite, neighbour, forget, …")
    metric: str = Field(description="target, unchanged, recall, … as scores are named")
    min: float | None = Field(None, description="the score is at least this")
    max: float | None = Field(None, description="the score is at most this")

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs a min or a max")
        return self


class Policy(BaseModel):
    """What a reviewer allows; what is left out is not asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plugins: tuple[str, ...] | None = Field(
        None, description="distributions that may make an edit, such as `hubedit>=0.1`"
    )
    same_plugin: bool = Field(
        False, description="whether the plugin must be, file by file, the one installed here"
    )
    max_relative_norm: float | None = Field(
        None, gt=0, description="of the change of a tensor, as a share of the tensor's norm"
    )
    probes: dict[Group, int] = Field(
        {}, description="how many questions of a group must have been asked, at least"
    )
    gates: tuple[Gate, ...] = Field((), description="bounds on scores after the edit")
    forced: bool = Field(True, description="whether guards may have been overruled by --force")

    @field_validator("plugins")
    @classmethod
    def _requirements(cls, plugins: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in plugins or ():
            try:
                Requirement(text)
            except InvalidRequirement as error:
                raise ValueError(f"{text!r} names no distribution as pip does") from error
        return plugins

    def breaches(
        self, manifest: Manifest, recorded: Sequence[Probe], *, asked: bool
    ) -> Iterator[str]:
        """Say in which ways an edit is not allowed.

        Args:
            manifest: of the edit; its figures were checked against the bytes.
            recorded: its probes.
            asked: whether its questions were asked again, so that scores are known to be true.
        """
        yield from self._by_plugin(manifest)
        for tensor in manifest.tensors if self.max_relative_norm is not None else ():
            norm = tensor.relative_norm
            if norm is None or norm > (self.max_relative_norm or 0):
                much = "has no norm to compare with" if norm is None else f"changed by {norm:.3g}"
                yield f"{tensor.name} {much}, and {self.max_relative_norm:g} of its norm is allowed"
        if not self.forced:
            yield from (f"a guard was overruled: {reason}" for reason in manifest.overruled)
        counts = Counter(probe.group for probe in recorded)
        for group, least in self.probes.items():
            if counts[group] < least:
                yield f"{counts[group]} questions of the group {group} were asked, and {least} must"
        if self.gates and not asked:
            yield "the gates cannot be judged, since the questions were not asked again"
        scores = {(score.group, score.metric): score.after for score in manifest.scores}
        for gate in self.gates:
            yield from _through(gate, scores.get((gate.group, gate.metric)))

    def _by_plugin(self, manifest: Manifest) -> Iterator[str]:
        made_by = manifest.plugin
        said = f"{made_by.distribution} {made_by.version}"
        if self.plugins is not None and not any(_is(text, made_by) for text in self.plugins):
            yield f"the plugin {said} is not among those allowed: {', '.join(self.plugins)}"
        if self.same_plugin:
            here = installed(made_by)
            if here is None or (here.version, here.sha256) != (made_by.version, made_by.sha256):
                yield f"the plugin {said} is not, file by file, the one installed here"


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        RecipeError: it is not there, no YAML, or has keys or values that a policy does not have.
    """
    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"the policy {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{path} must hold keys such as plugins, max_relative_norm and gates")
    for key in value:
        if key not in Policy.model_fields:
            raise RecipeError(
                f"{path} has an unknown key {key!r}; {near_misses(str(key), Policy.model_fields)}"
            )
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        raise RecipeError(f"{path} is not usable: {first_problem(error)}") from error


def _is(text: str, made_by: PluginRecord) -> bool:
    """Whether a requirement such as `hubedit>=0.1` names a plugin's distribution and version."""
    wanted = Requirement(text)
    try:
        fits = wanted.specifier.contains(made_by.version, prereleases=True)
    except InvalidVersion:
        return False
    return _plain(wanted.name) == _plain(made_by.distribution) and fits


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _through(gate: Gate, score: float | None) -> Iterator[str]:
    name = f"the score {gate.group}, {gate.metric}"
    if score is None:
        yield f"{name} has a gate, and nobody asked such a question"
    elif gate.min is not None and score < gate.min:
        yield f"{name} is {score:.3g}, and must be at least {gate.min:g}"
    elif gate.max is not None and score > gate.max:
        yield f"{name} is {score:.3g}, and must be at most {gate.max:g}"
