"""From rows to changed neurons: attribution, choice, trial, update, and what is recorded of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hubedit_rome.site import at_rest

import hubedit
from hubedit.layouts import Layout
from hubedit_kn.attribution import Attribution, attribute, probabilities
from hubedit_kn.config import KnConfig
from hubedit_kn.memory import Change, Memory, Neuron, change_of
from hubedit_kn.neurons import Found, refine
from hubedit_kn.picture import show
from hubedit_kn.places import Place, Position, Prompt, likeliest, places

GROWTH = 1.25
"""How many more neurons the next trial has than the one before."""
WRITING = frozenset({"update", "enhance"})
"""Operations that make a row's target likelier; the others take its known answer away."""


@dataclass(frozen=True)
class Fact:
    """A row as it is asked: the places of its known answer after each prompt, old and new tokens.

    `followed` are the places of the answer whose probability says when it is enough.
    """

    asked: Sequence[Sequence[Place]]
    followed: Sequence[Sequence[Place]]
    old: Sequence[int]
    new: Sequence[int]


@dataclass(frozen=True)
class Chosen:
    """The neurons of a fact, and its probability [before, after], the mean over its prompts."""

    neurons: Sequence[Neuron]
    found: Found
    before: float
    after: float


def apply(
    model: hubedit.EditableModel,
    rows: Sequence[hubedit.FactEdit],
    config: KnConfig,
    run: hubedit.RunContext,
) -> None:
    """Find every row's neurons in the unedited model, then change all of them.

    Raises:
        RequestError: a row names an answer that the operation does not take, or lacks the one it
            does, or two rows contradict each other.
        ConfigError: `fewest` is above `most`, or there is no unknown token.
        MethodError: no neuron makes an answer likelier, or numbers are not finite.
        CollapseError: a guard stopped the edit and `run.force` is not set.
    """
    if config.fewest > config.most:
        raise hubedit.ConfigError(
            f"fewest={config.fewest} is above most={config.most}; set most higher"
        )
    _refuse_misread(rows, config)
    position: Position = config.position or (
        "answer" if config.operation == "update" else "subject"
    )
    layout = model.layout.reader if position == "subject" else model.layout
    memory = Memory(model, layout)
    with at_rest(model.model):
        facts = [_fact(model, row, number, config, position) for number, row in _numbered(rows)]
        found = attribute(
            model,
            layout,
            [places for fact in facts for places in fact.asked],
            steps=config.steps,
            batch=config.batch,
            run=run,
        )
        changes = [change_of(model, config, fact.old, fact.new) for fact in facts]
        chosen, means = [], []
        parts = iter(found)
        with run.progress("neurons", total=len(facts)) as bar:
            for number, (fact, change) in enumerate(zip(facts, changes, strict=True), start=1):
                own = [next(parts) for _ in fact.asked]
                means.append(torch.stack([one.scores for one in own]).mean(0))
                chosen.append(_choose(memory, fact, own, change, config, number, run))
                bar.advance(1)
    _write(memory, chosen, changes, config)
    _record(run, layout, chosen)
    show(run, means, position)


def _numbered(rows: Sequence[hubedit.FactEdit]) -> Sequence[tuple[int, hubedit.FactEdit]]:
    return list(enumerate(rows, start=1))


def _refuse_misread(rows: Sequence[hubedit.FactEdit], config: KnConfig) -> None:
    """Refuse rows that say something else than the operation does, and those that contradict."""
    operation = config.operation
    wanted: dict[str, tuple[int, str]] = {}
    for number, row in _numbered(rows):
        target = row.target.strip()
        if operation in WRITING and not target:
            raise hubedit.RequestError(
                f"row {number} names no target, and operation={operation} makes one likelier; "
                "name it, or set operation=erase"
            )
        if operation not in WRITING and target:
            fix = (
                "leave target out (true_target names the answer that goes)"
                if row.true_target
                else "leave target out and name the answer that goes as true_target"
            )
            raise hubedit.RequestError(
                f"row {number} names a target, and operation={operation} puts nothing in the place "
                f"of an answer; {fix}, or set operation=update"
            )
        first, other = wanted.setdefault(row.text, (number, target))
        if other != target:
            raise hubedit.RequestError(
                f"rows {first} and {number} ask the same and want different answers; leave one out"
            )


def _fact(
    model: hubedit.EditableModel,
    row: hubedit.FactEdit,
    number: int,
    config: KnConfig,
    position: Position,
) -> Fact:
    """Locate a row's answers in its prompts.

    Raises:
        RequestError: a paraphrase does not name the subject, whose place is asked about.
    """
    known, target = (row.true_target or "").strip(), row.target.strip()
    texts = [row.text, *(row.paraphrases if config.paraphrases else ())]
    spans = [row.subject_span, *(_span(text, row.subject) for text in texts[1:])]
    if position == "subject" and None in spans:
        raise hubedit.RequestError(
            f"row {number}: paraphrase {spans.index(None)} does not name the subject; leave it "
            "out, or set paraphrases=false or position=answer"
        )

    def located(answer: str) -> list[list[Place]]:
        return [
            places(model, Prompt(text, answer, span), position)
            for text, span in zip(texts, spans, strict=True)
        ]

    if config.operation == "enhance":
        known = target
    if known:
        asked = located(known)
    else:
        asked = [
            likeliest(model, Prompt(text, "", span), position)
            for text, span in zip(texts, spans, strict=True)
        ]
    followed = located(target) if config.operation == "update" else asked
    return Fact(
        asked,
        followed,
        old=[place.token for place in asked[0]],
        new=[place.token for place in followed[0]],
    )


def _span(text: str, subject: str) -> tuple[int, int] | None:
    """Where a prompt names the subject, or None."""
    start = text.find(subject)
    return None if start < 0 else (start, start + len(subject))


def _choose(
    memory: Memory,
    fact: Fact,
    own: Sequence[Attribution],
    change: Change,
    config: KnConfig,
    number: int,
    run: hubedit.RunContext,
) -> Chosen:
    """The published neurons, and as many of the others as it takes."""
    try:
        found = refine(
            torch.stack([one.scores for one in own]),
            config.threshold,
            config.sharing,
            config.fewest,
            config.most,
        )
    except hubedit.MethodError as error:
        raise hubedit.MethodError(
            f"row {number}: {error}; its answer may not be what the model says, or set "
            "position to the other place"
        ) from error
    before = probabilities(memory.model, fact.followed, config.batch)
    most = max(int(config.max_share * own[0].scores.numel()), found.refined)
    count = found.refined
    while True:
        neurons = found.order[:count]
        with memory.tried(neurons, change):
            after = probabilities(memory.model, fact.followed, config.batch)
        if _reached(before, after, config):
            break
        if count >= min(most, len(found.order)):
            reason = (
                f"row {number}: {count} neurons are not enough: the answer's probability went from "
                f"{_mean(before):.2g} to {_mean(after):.2g}"
            )
            if not run.force:
                raise hubedit.CollapseError(
                    f"{reason}; the fact does not lie in few of them. Raise max_share, lower "
                    "enough, or insist with --force"
                )
            run.overridden(reason)
            break
        count = min(max(count + 1, math.ceil(count * GROWTH)), most, len(found.order))
    return Chosen(neurons, found, _mean(before), _mean(after))


def _reached(before: Sequence[float], after: Sequence[float], config: KnConfig) -> bool:
    """Whether the neurons changed so far are enough, on average over the prompts."""
    if config.enough is None or config.operation == "enhance":
        return True
    if config.operation == "update":
        return _mean(after) >= config.enough
    left = [now / max(was, 1e-300) for was, now in zip(before, after, strict=True)]
    return _mean(left) <= 1 - config.enough


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _write(
    memory: Memory, chosen: Sequence[Chosen], changes: Sequence[Change], config: KnConfig
) -> None:
    """Change the neurons of all facts; what update adds for several facts adds up."""
    if config.operation == "update":
        memory.write([(one.neurons, how) for one, how in zip(chosen, changes, strict=True)])
    else:
        every = sorted({neuron for one in chosen for neuron in one.neurons})
        memory.write([(every, changes[0])])


def _record(run: hubedit.RunContext, layout: Layout, chosen: Sequence[Chosen]) -> None:
    """Put into the manifest how many neurons each fact has, and what trying them did."""
    run.record("stack", layout.block.partition(".{}")[0])
    run.record(
        "rows",
        [
            {
                "neurons": len(one.neurons),
                "refined": [list(neuron) for neuron in one.found.order[: one.found.refined]],
                "sharing": one.found.sharing,
                "probability": [float(f"{one.before:.6g}"), float(f"{one.after:.6g}")],
            }
            for one in chosen
        ],
    )
