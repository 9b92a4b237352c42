"""When training ends and when it went wrong: judged on the weights as they will be stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

import hubedit
from hubedit_unlearn.adaptation import Trained
from hubedit_unlearn.condition import as_stored
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.parts import Parts
from hubedit_unlearn.scoring import scored
from hubedit_unlearn.texts import Example


@dataclass(frozen=True)
class Look:
    """What the model makes of the request after some steps.

    `probability` is the mean over the unlearnt tokens; `loss` the mean over the retained ones, in
    nats, or None if the request retains nothing.
    """

    step: int
    probability: float
    loss: float | None


class Watch:
    """Looks at fixed texts of both parts as training goes on.

    Raises:
        MethodError: the model does not know what it shall forget, unless `run.force` is set.
    """

    def __init__(
        self,
        model: hubedit.EditableModel,
        trained: Trained,
        dtype: torch.dtype,
        parts: Parts,
        config: TrainingConfig,
        run: hubedit.RunContext,
    ) -> None:
        self._model, self._trained, self._dtype = model, trained, dtype
        self._config, self._run = config, run
        self._counts = {
            f"{name}_{what}": count
            for name, part in (("forget", parts.forget), ("retain", parts.retain))
            for what, count in (
                ("texts", len(part)),
                ("tokens", sum(example.labelled for example in part)),
            )
        }
        self._forget = _some(parts.forget, config.evaluation_texts, run.generator)
        self._judged = _some(parts.judged, config.evaluation_texts, run.generator)
        self.ruled = False
        """Whether the method's own rule ended the training."""
        self.holding = True
        """Whether the loss holds on to what is retained, so that more steps can bring it back."""
        self.looks = [self._now(0)]
        if self._forgotten:
            _stop(
                run,
                hubedit.MethodError(
                    f"the model gives the tokens to forget a mean probability of "
                    f"{self.looks[0].probability:.2g} already, below forget_target="
                    f"{config.forget_target:g}; there is nothing to forget, or set a lower target"
                ),
            )

    @property
    def tokens(self) -> int:
        """Tokens that each look reads."""
        return sum(len(example.ids) for example in (*self._forget, *self._judged))

    @property
    def growth(self) -> float | None:
        """Perplexity of the retained tokens over what it was at the start, if some are retained."""
        first, last = self.looks[0].loss, self.looks[-1].loss
        if first is None or last is None:
            return None
        return math.exp(min(last - first, 700.0))

    @property
    def _forgotten(self) -> bool:
        target = self._config.forget_target
        return target is not None and self.looks[-1].probability < target

    def _beyond(self, limit: float | None) -> bool:
        """Whether the retained perplexity grew more than so many times."""
        growth = self.growth
        return limit is not None and growth is not None and not growth <= limit

    def look(self, step: int) -> bool:
        """Look again; returns whether training is to end.

        That is when all is forgotten and enough retained, or cannot be brought back by more steps,
        or when too much is lost.

        Raises:
            MethodError: what the model says is no longer finite.
        """
        self.looks.append(self._now(step))
        lost = self._beyond(self._config.retain_ceiling)
        done = self._forgotten and not (lost and self.holding)
        return done or self._beyond(self._config.retain_stop)

    @property
    def lost(self) -> bool:
        """Whether too much of what was to be retained is lost."""
        return self._beyond(self._config.retain_ceiling)

    def look_after(self, scale: float) -> bool:
        """Look at weights that were changed after the last step; whether all is forgotten."""
        self.looks.append(self._now(self.looks[-1].step))
        self._run.log(
            f"scale {scale:g}: mean probability of the tokens to forget "
            f"{self.looks[-1].probability:.2g}"
        )
        return self._forgotten

    def kept(self) -> list[list[float | None]]:
        """The looks as JSON."""
        return [list(astuple(look)) for look in self.looks]

    def restore(self, kept: Sequence[tuple[int, float, float | None]]) -> None:
        """Take the looks of a run that was interrupted for one's own."""
        self.looks = [Look(*look) for look in kept]

    def conclude(self, step: int, ranks: Mapping[str, Any]) -> None:
        """Record the figures, beside how many ranks there were, and judge how it ended.

        Raises:
            CollapseError: too much of what was to be retained is lost, unless `run.force` is set.
        """
        if self.looks[-1].step != step:
            self.looks.append(self._now(step))
        first, last = self.looks[0], self.looks[-1]
        retained = {}
        if first.loss is not None and last.loss is not None and self.growth is not None:
            retained = {
                "retain_loss_before": _figure(first.loss),
                "retain_loss": _figure(last.loss),
                "retain_perplexity_ratio": _figure(self.growth),
            }
        self._run.record(
            "unlearning",
            {
                **self._counts,
                "steps": step,
                **ranks,
                "stored_dtype": str(self._dtype).removeprefix("torch."),
                "trained_values": sum(item.numel() for item in self._trained.parameters),
                "forget_probability_before": _figure(first.probability),
                "forget_probability": _figure(last.probability),
                **retained,
                "reached": self._forgotten or self.ruled,
            },
        )
        target = self._config.forget_target
        if target is not None and not self._forgotten and not self.ruled:
            self._run.log(
                f"after {step} steps the tokens to forget still have a mean probability of "
                f"{last.probability:.2g} (forget_target {target:g}); try more steps or a larger "
                "learning_rate"
            )
        if self.growth is None:
            self._run.log(
                "the request retains nothing, so nothing was watched but what is forgotten; rows "
                "with part=retain would show what else is lost"
            )
        if self._beyond(self._config.retain_ceiling):
            _stop(
                self._run,
                hubedit.CollapseError(
                    f"the perplexity of the texts to retain grew {self.growth:.3g} times (limit "
                    f"{self._config.retain_ceiling:g}); use a smaller learning_rate, a larger "
                    "weight or more texts to retain, or a method that has some"
                ),
            )

    def _now(self, step: int) -> Look:
        with as_stored(self._trained, self._dtype):
            forgotten = self._nll(self._forget)
            loss = float(self._nll(self._judged).mean()) if self._judged else None
        look = Look(step, float(forgotten.neg().exp().mean()), loss)
        if not math.isfinite(look.probability + (loss or 0.0)):
            raise hubedit.MethodError(
                f"after {step} steps the model's probabilities are not finite; use a smaller "
                "learning_rate"
            )
        return look

    def _nll(self, examples: Sequence[Example]) -> torch.Tensor:
        """Cross-entropies of all labelled tokens, float64 on the CPU."""
        size = self._config.batch_size
        ordered = sorted(examples, key=lambda example: len(example.ids))
        pieces = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        with torch.no_grad():
            return torch.cat([scored(self._model, piece).nll.cpu().double() for piece in pieces])


def _some(examples: Sequence[Example], count: int, generator: torch.Generator) -> Sequence[Example]:
    if len(examples) <= count:
        return examples
    chosen = torch.randperm(len(examples), generator=generator)[:count]
    return [examples[index] for index in chosen.tolist()]


def _stop(run: hubedit.RunContext, error: hubedit.MethodError) -> None:
    """Raise, or note that the user insists."""
    if not run.force:
        raise error
    run.overridden(str(error))


def _figure(value: float) -> float:
    return float(f"{value:.6g}")
