"""Records of KnowEdit: WikiData recent and counterfact, zsRE and WikiBio as it writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hubedit.readers.shape import Fields, Record, Shape, first_text, holed


def read(record: Record) -> Iterator[Fields]:
    """One record; of several right answers the first is the answer.

    All prompts of `portability` (reasoning, aliases of the subject, logical generalisation) are
    asked for what follows from the edit; all of `locality` (other relations of the subject, the
    old answer of a relation with several) are the subject's attributes, which should stay.
    """
    if "concept" in record:
        subject, prompt, target = record["concept"], record["text"], record["labels"]
    else:
        subject, prompt, target = record["subject"], record["prompt"], record["target_new"]
    rephrased = record.get("rephrase_prompt") or record.get("rephrase") or []
    yield {
        "case_id": record.get("case_id"),
        "relation": first_text(record.get("relation_id") or record.get("relation")),
        "prompt": holed(prompt, subject),
        "subject": subject,
        "target": first_text(target),
        "true_target": first_text(record.get("ground_truth")),
        "paraphrases": [rephrased] if isinstance(rephrased, str) else list(rephrased),
        "attributes": list(_prompts(record.get("locality"))),
        "portability": list(_prompts(record.get("portability"))),
    }


def _prompts(groups: Any) -> Iterator[Fields]:
    for items in (groups or {}).values():
        for item in items or ():
            answer = first_text(item.get("ground_truth"))
            if item.get("prompt") and answer:
                yield {"prompt": item["prompt"], "target": answer}


def _known(record: Record) -> bool:
    return {"subject", "prompt", "target_new"} <= record.keys() or (
        {"concept", "text", "labels"} <= record.keys()
    )


SHAPES = (
    Shape(
        name="knowedit",
        row="FactEdit",
        known=_known,
        read=read,
        source="KnowEdit (Zhang et al. 2024, arXiv:2401.01286)",
    ),
)
