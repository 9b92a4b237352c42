"""Which terms each method's loss has, what it needs, and when it ends by itself; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hubedit
from hubedit_unlearn.adaptation import Trained
from hubedit_unlearn.config import (
    CeUConfig,
    DpoConfig,
    GaConfig,
    GradDiffConfig,
    IdkConfig,
    KlConfig,
    LlmuConfig,
    NpoConfig,
    RetainingConfig,
    SatImpConfig,
    SimNpoConfig,
    TaskVectorConfig,
    UndialConfig,
    WgaConfig,
)
from hubedit_unlearn.extraction import both_below
from hubedit_unlearn.losses import (
    Term,
    ascent,
    ascent_of_means,
    capped_ascent,
    cross_entropy_before,
    descent,
    direct_preference,
    divergence,
    lowered,
    mean_of_means,
    negative_preference,
    simple_preference,
    weighted_ascent,
    without_label,
)
from hubedit_unlearn.negation import negate
from hubedit_unlearn.setting import Rule, Setting
from hubedit_unlearn.steering import misdirection, steered_blocks
from hubedit_unlearn.watch import Watch


def both(_: Any) -> Collection[str]:
    """The parts that most methods need."""
    return ("forget", "retain")


def alone(_: Any) -> Collection[str]:
    """The part that every method needs."""
    return ("forget",)


def with_normal(_: Any) -> Collection[str]:
    """Forget rows, and rows that have nothing to do with them."""
    return ("forget", "normal")


def as_chosen(config: RetainingConfig) -> Collection[str]:
    """The parts that a method needs whose term on the retain texts is chosen."""
    return ("forget",) if config.retain == "none" else ("forget", "retain")


@dataclass(frozen=True)
class Objective:
    """A method's loss and what belongs to it.

    `terms` makes the loss from the settings; `needs` names parts that the request must have;
    `settled` fills in settings that depend on the model; `rule` makes the method's own rule of
    when to end, given a step and what each term gave in it; `finish` changes the trained weights
    once more.
    """

    terms: Callable[[Any, Setting], Sequence[Term]]
    needs: Callable[[Any], Collection[str]] = both
    settled: Callable[[Any, hubedit.EditableModel], Any] = lambda config, _: config
    rule: Callable[[Any, Setting], Rule | None] = lambda config, _: None
    finish: Callable[[Any, Setting, Trained, Watch], None] = lambda config, _, trained, watch: None


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


def llmu(config: LlmuConfig, _: Setting) -> Sequence[Term]:
    """ε₁·ascent on answers + ε₂·CE of random answers + ε₃·CE(p, p₀) on normal texts."""
    return [
        Term("forget", ascent_of_means, config.forget_weight),
        Term("random answers", mean_of_means, config.random_weight),
        Term("normal", cross_entropy_before, config.normal_weight, before="logits"),
    ]


def loss_reached(config: LlmuConfig, _: Setting) -> Rule:
    """Ends training once the forget answers' mean cross-entropy is high enough."""

    def done(step: int, figures: Mapping[str, float]) -> bool:
        return -figures["forget"] >= config.highest_loss

    return done


def undial(config: UndialConfig, _: Setting) -> Sequence[Term]:
    """The distillation of lowered logits, and the retain term."""
    return [Term("forget", lowered(config.beta), before="logits"), *held(config)]


def wga(config: WgaConfig, _: Setting) -> Sequence[Term]:
    """Ascent weighted by the token's probability, and the retain term."""
    return [Term("forget", weighted_ascent(config.beta)), *held(config)]


def satimp(config: SatImpConfig, _: Setting) -> Sequence[Term]:
    """Ascent weighted by saturation and importance, and the retain term."""
    loss = weighted_ascent(config.saturation, config.importance)
    return [Term("forget", loss, config.forget_weight), *held(config)]


def ceu(config: CeUConfig, setting: Setting) -> Sequence[Term]:
    """Cross-entropy with what the model says without the token."""
    forget = setting.parts.forget
    short = sum(example.labelled <= config.skip_first for example in forget)
    setting.run.record("later_tokens", {"texts_left_out": short})
    if short:
        setting.run.log(
            f"{short} of {len(forget)} texts to forget have no more than skip_first="
            f"{config.skip_first} tokens and are not trained on; set skip_first=0 to forget them"
        )
    return [Term("later tokens", without_label)]


def taskvector(config: TaskVectorConfig, _: Setting) -> Sequence[Term]:
    """CE(forget), to be negated."""
    return [Term("forget", descent)]


OBJECTIVES: Mapping[str, Objective] = {
    "ga": Objective(ga, alone),
    "graddiff": Objective(graddiff),
    "kl": Objective(kl),
    "idk": Objective(idk),
    "dpo": Objective(dpo, as_chosen),
    "npo": Objective(npo, as_chosen),
    "simnpo": Objective(simnpo, as_chosen),
    "rmu": Objective(misdirection, settled=steered_blocks),
    "jang": Objective(ga, alone, rule=both_below),
    "llmu": Objective(llmu, with_normal, rule=loss_reached),
    "undial": Objective(undial, as_chosen),
    "wga": Objective(wga, as_chosen),
    "satimp": Objective(satimp, as_chosen),
    "ceu": Objective(ceu, alone),
    "taskvector": Objective(taskvector, alone, finish=negate),
}
"""By the method's name."""
