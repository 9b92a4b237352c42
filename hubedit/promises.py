"""Promises about the run itself: interrupted, measured, compared with what it claims."""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubedit import context, models, run
from hubedit.bench import Bench, condition, told_apart
from hubedit.delta import encode
from hubedit.errors import HubEditError
from hubedit.manifest import Manifest
from hubedit.method import Method

CLOSE = 2.0**-6
"""How far a published weight may be from the one the method left, as a share of it: roundings."""


class Promises(Bench):
    """What hubedit promises of a method beyond its result."""

    def test_an_interruption_leaves_no_trace(
        self, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C half-way leaves no output, no hook and no state that a later run could meet."""
        import torch

        from hubedit.watching import Steps

        classes = [one for one in self.method.__mro__ if issubclass(one, Method) and one != Method]
        packages = {one.__module__.partition(".")[0] for one in classes}
        output = tmp_path / "out" / "edit"
        steps = Steps(packages)
        whole = self._watched(steps, model_directory, tmp_path / "whole", [])
        monkeypatch.setenv("HUBEDIT_HOME", str(tmp_path / "another-home"))
        seen: list[models.LoadedModel] = []
        noise = torch.random.get_rng_state()
        threads = torch.get_num_threads()
        stopped = Steps(packages, (steps.taken + 1) // 2)
        with pytest.raises(KeyboardInterrupt):
            self._watched(stopped, model_directory, output, seen)
        left = [path.name for path in output.parent.glob("*")]
        self.promised(not left, f"{', '.join(left[:4])} is left behind")
        same = torch.equal(noise, torch.random.get_rng_state())
        self.promised(same, "the global random state of torch is another")
        self.promised(
            (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, True),
            "the number of threads or the mode of gradients is another",
        )
        fresh = models.load(model_directory)
        before = condition(fresh)
        seen[0].restore()
        other = told_apart(before, condition(seen[0]))
        self.promised(not other, f"the model is left with {other}")
        again = self.edit(model_directory, tmp_path / "again")
        self.promised(
            again.manifest.delta.sha256 == whole.manifest.delta.sha256,
            "the next run gives another delta than one that was not interrupted before",
        )

    def test_memory_stays_within_a_few_copies_of_the_weights(self, model_directory: Path) -> None:
        """At most `copies` of a weight at once (gradients and moments count), and none after."""
        from hubedit.watching import Held

        job = self.job(model_directory)
        model = models.load(model_directory)
        held = Held(model.model)
        with held:
            run.run_method(model, job, self.force, context.Silent())
        self.promised(
            held.peak <= self.copies,
            f"{held.peak:.1f} copies of the weights were held at once, and {self.copies} are "
            "the bound (`copies` of the contract)",
        )
        model.model.zero_grad(set_to_none=True)
        self.promised(held.left() == 0, f"{held.left()} copies of weights are held after the run")

    def test_what_is_published_is_what_the_method_left(self, model_directory: Path) -> None:
        """By `model.update` or in place alike: weights, and nothing that only this process has."""
        import torch

        job = self.job(model_directory)
        model = models.load(model_directory)
        run.run_method(model, job, self.force, context.Silent())
        if model.presence or model.written:
            return  # files and new tensors are no state of the model that the method was given
        pairs = [("Ada Brook plays the", " oboe"), ("In Porto, Tom Adler", " plays")]
        before = [score.logprobs for score in model.target_logprobs(pairs)]
        values = {name: model.weight(name).detach().clone() for name in model.tensors.tensor_of}
        made = encode(model.changes(), model.start, meta={}, aliases={})
        model = models.load(model_directory, overlay=made.after)
        for name, value in values.items():
            gap = (model.weight(name) - value).abs()
            room = CLOSE * value.abs() + 1e-5 * float(value.abs().max())
            self.promised(
                bool((gap <= room).all()),
                f"{name} is published up to {float(gap.max()):.2g} away from what was left",
            )
            with torch.no_grad():
                model.weight(name).copy_(value)
        after = [score.logprobs for score in model.target_logprobs(pairs)]
        far = max(
            abs(old - new)
            for one, other in zip(before, after, strict=True)
            for old, new in zip(one, other, strict=True)
        )
        self.promised(
            far <= 1e-3,
            f"the method left more than weights: with these weights alone, log-probabilities "
            f"differ by {far:.2g}",
        )

    def test_the_assurance_is_one_that_the_method_has(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        """`exact`, `certified` and `guardrail` are claims with a price; `approximate` is none."""
        done = self.made(model_directory).manifest
        claim = self.method.assurance
        if claim != "guardrail":
            self.promised(
                bool(done.tensors),
                f"it claims to be {claim} and changes no weight: that is a guardrail",
            )
        if claim in ("exact", "certified"):
            self.promised(bool(self.method.limits), f"it claims to be {claim} and names no limits")
        if claim == "certified":
            self.promised(bool(self.method.paper), "it claims to be certified and names no paper")
            bound = done.record.get("certificate")
            self.promised(
                isinstance(bound, Mapping) and bool(bound) and all(map(_finite, bound.values())),
                "it claims to be certified and records no bound: "
                "run.record('certificate', {'epsilon': …})",
            )
        if claim == "exact" and self.method.kind == "edit":
            missed = [one for one in done.scores if one.group == "rewrite" and one.after < 1]
            self.promised(
                not missed,
                "it claims to be exact, and the edited model does not say what was asked",
            )
        if claim == "exact" and self.method.kind == "unlearn":
            other = self._on_other_words(model_directory, tmp_path / "other")
            self.promised(
                other is None or other.delta.sha256 == done.delta.sha256,
                "it claims to be exact, and the result depends on the words that were forgotten",
            )

    def _watched(
        self, steps: Any, base: Path, output: Path, seen: list[models.LoadedModel]
    ) -> run.Applied:
        """Run the method with its calls counted; the model it is given is put into `seen`."""
        job = self.job(base)
        method = job.method

        def apply(self: Any, model: Any, rows: Any, config: Any, run: Any) -> None:
            seen.append(model)
            with steps.counted():
                method.apply(self, model, rows, config, run)

        watched = type(
            method.__name__, (method,), {"apply": apply, "__module__": method.__module__}
        )
        return run.apply(replace(job, method=watched), output, force=self.force)

    def _on_other_words(self, base: Path, output: Path) -> Manifest | None:
        """The edit of a request that forgets other words; None if the method knows them not."""
        kind = self.method.row_type()
        rows = [
            _reworded(row) if kind.model_validate(row).part_name == "forget" else row
            for row in self.rows
        ]
        try:
            return run.apply(self.job(base, rows=rows), output, force=self.force).manifest
        except HubEditError:
            return None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _reworded(value: Any) -> Any:
    """A row with other letters in the place of each, but for the names of its parts."""
    if isinstance(value, str):
        return codecs.encode(value, "rot13")
    if isinstance(value, Mapping):
        return {key: one if key == "part" else _reworded(one) for key, one in value.items()}
    return [_reworded(one) for one in value] if isinstance(value, list | tuple) else value
