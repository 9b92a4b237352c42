"""Which terms each method's loss has, what it needs, and when it ends by itself; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hubedit
from hubedit_unlearn.config import (
    DpoConfig,
    GaConfig,
    GradDiffConfig,
    IdkConfig,
    KlConfig,
    NpoConfig,
    RetainingConfig,
    SimNpoConfig,
)
from hubedit_unlearn.losses import (
    Term,
    ascent,
    capped_ascent,
    descent,
    direct_preference,
    divergence,
    negative_preference,
    simple_preference,
)
from hubedit_unlearn.setting import Rule, Setting
from hubedit_unlearn.steering import misdirection, steered_blocks


def both(_: Any) -> Collection[str]:
    """The parts that most methods need."""
    return ("forget", "retain")


def alone(_: Any) -> Collection[str]:
    """The part that every method needs."""
    return ("forget",)


def as_chosen(config: RetainingConfig) -> Collection[str]:
    """The parts that a method needs whose term on the retain texts is chosen."""
    return ("forget",) if config.retain == "none" else ("forget", "retain")


@dataclass(frozen=True)
class Objective:
    """A method's loss and what belongs to it.

    `terms` makes the loss from the settings; `needs` names parts that the request must have;
    `settled` fills in settings that depend on the model; `rule` makes the method's own rule of
    when to end, given a step and what each term gave in it.
    """

    terms: Callable[[Any, Setting], Sequence[Term]]
    needs: Callable[[Any], Collection[str]] = both
    settled: Callable[[Any, hubedit.EditableModel], Any] = lambda config, _: config
    rule: Callable[[Any, Setting], Rule | None] = lambda config, _: None


def held(config: RetainingConfig) -> list[Term]:
    """The term on the retain texts that a setting chooses."""
    terms = {
        "none": [],
        "nll": [Term("retain", descent, config.retain_weight)],
        "kl": [Term("retain", divergence, config.retain_weight, before="logits")],
    }
    return terms[config.retain]


def ga(config: GaConfig, _: Setting) -> Sequence[Term]:
    """−CE(forget)."""
    return [Term("forget", ascent)]


def graddiff(config: GradDiffConfig, _: Setting) -> Sequence[Term]:
    """−CE(forget) + λ·CE(retain), each a mean over labelled tokens (Maini et al. 2024, section 4).

    Deviation: the ascent on a token stops at `forget_cap` nats.
    """
    return [
        Term("forget", capped_ascent(config.forget_cap)),
        Term("retain", descent, config.retain_weight),
    ]


def kl(config: KlConfig, _: Setting) -> Sequence[Term]:
    """−CE(forget) + λ·KL(p₀ ‖ p) on the retain texts (Maini et al. 2024, section 4)."""
    return [
        Term("forget", ascent),
        Term("retain", divergence, config.retain_weight, before="logits"),
    ]


def idk(config: IdkConfig, _: Setting) -> Sequence[Term]:
    """CE over forget questions with refusals and retain texts together, one mean over tokens."""
    return [Term("refused and retain", descent)]


def dpo(config: DpoConfig, _: Setting) -> Sequence[Term]:
    """The preference of a refusal over the answer, and the retain term."""
    pairs = Term("refusal over answer", direct_preference(config.beta), before="sums")
    return [pairs, *held(config)]


def npo(config: NpoConfig, _: Setting) -> Sequence[Term]:
    """The preference against the forget texts, and the retain term."""
    return [Term("forget", negative_preference(config.beta), before="sums"), *held(config)]


def simnpo(config: SimNpoConfig, _: Setting) -> Sequence[Term]:
    """The preference without a reference, and the retain term."""
    loss = simple_preference(config.beta, config.delta)
    return [Term("forget", loss, config.forget_weight), *held(config)]


OBJECTIVES: Mapping[str, Objective] = {
    "ga": Objective(ga, alone),
    "graddiff": Objective(graddiff),
    "kl": Objective(kl),
    "idk": Objective(idk),
    "dpo": Objective(dpo, as_chosen),
    "npo": Objective(npo, as_chosen),
    "simnpo": Objective(simnpo, as_chosen),
    "rmu": Objective(misdirection, settled=steered_blocks),
}
"""By the method's name."""
