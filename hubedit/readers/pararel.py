"""Records of ParaRel: relations with their subjects, objects and patterns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from hubedit.readers.shape import Fields, Record, Shape

SUBJECT, OBJECT, MASK = "[X]", "[Y]", "[MASK]"
NEIGHBOURS = 10
"""Subjects with the same answer that are asked beside each, at most."""


def read(masked: bool, record: Record) -> Iterator[Fields]:
    """A relation, or an object of relations by name, each with `vocab` and `graphs`.

    ParaRel asks what is, and names no new answer: the target is the next other object of the
    relation, in the order of the alphabet. The first pattern is the prompt, the others are
    paraphrases.

    Args:
        masked: patterns with their object anywhere, written as a mask; otherwise those that end
            with it, for models that continue a text.

    Raises:
        ValueError: a relation has no usable pattern, or one object alone.
    """
    relations = {record.get("relation", ""): record} if "vocab" in record else record
    for name, relation in relations.items():
        patterns = [_open(str(item["pattern"]), masked) for item in relation["graphs"]]
        usable = [pattern for pattern in patterns if pattern]
        objects = sorted({str(entry["obj_label"]) for entry in relation["vocab"]})
        if not usable:
            raise ValueError(f"no pattern of the relation {name!r} ends with its object {OBJECT}")
        if len(objects) < 2:
            raise ValueError(f"the relation {name!r} has one object alone, so nothing to change to")
        following = dict(zip(objects, objects[1:] + objects[:1], strict=True))
        for entry in relation["vocab"]:
            yield _case(name, entry, relation["vocab"], usable, following)


def _case(
    name: str, entry: Record, vocab: list[Any], patterns: list[str], following: dict[str, str]
) -> Fields:
    subject, answer = str(entry["sub_label"]), str(entry["obj_label"])
    others = [
        other
        for other in vocab
        if other["obj_label"] == entry["obj_label"] and other["sub_label"] != entry["sub_label"]
    ]
    return {
        "case_id": str(entry.get("uuid") or f"{name}:{subject}"),
        "relation": name or None,
        "prompt": patterns[0],
        "subject": subject,
        "target": following[answer],
        "true_target": answer,
        "paraphrases": [pattern.replace("{}", subject) for pattern in patterns[1:]],
        "neighbours": [
            {"prompt": patterns[0].replace("{}", str(other["sub_label"])), "target": answer}
            for other in others[:NEIGHBOURS]
        ],
    }


def _open(pattern: str, masked: bool) -> str:
    """A pattern as a prompt with `{}`; empty if it cannot be one."""
    if pattern.count(SUBJECT) != 1 or pattern.count(OBJECT) != 1 or "{" in pattern:
        return ""
    if masked:
        return pattern.replace(SUBJECT, "{}").replace(OBJECT, MASK)
    before, _, after = pattern.partition(OBJECT)
    if after.strip(" .,;:!?") or SUBJECT not in before:
        return ""
    return before.replace(SUBJECT, "{}").rstrip()


def _known(record: Record) -> bool:
    values = [record] if "vocab" in record else list(record.values())
    return bool(values) and all(
        isinstance(value, dict) and {"vocab", "graphs"} <= value.keys() for value in values
    )


_SOURCE = "ParaRel (Elazar et al. 2021, arXiv:2102.01017)"
SHAPES = (
    Shape("pararel", "FactEdit", _known, partial(read, False), f"{_SOURCE}, to be continued"),
    Shape("pararel-masked", "FactEdit", None, partial(read, True), f"{_SOURCE}, with a mask"),
)
