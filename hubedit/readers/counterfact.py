"""Records of CounterFact and MultiCounterFact."""

from __future__ import annotations

from collections.abc import Iterator

from hubedit.readers.shape import Fields, Record, Shape, holed


def read(record: Record) -> Iterator[Fields]:
    """One CounterFact record: the rewrite, two paraphrases, ten neighbours, ten open prompts.

    A neighbour's answer is the true one of the rewrite. `attribute_prompts` are left out: they ask
    about other subjects that have the new answer, and neither follow the edit nor stay.
    """
    rewrite = record["requested_rewrite"]
    true_target = rewrite["target_true"]["str"]
    yield {
        "case_id": record.get("case_id"),
        "relation": rewrite.get("relation_id"),
        "prompt": holed(rewrite["prompt"], rewrite["subject"]),
        "subject": rewrite["subject"],
        "target": rewrite["target_new"]["str"],
        "true_target": true_target,
        "paraphrases": record.get("paraphrase_prompts", []),
        "neighbours": [
            {"prompt": prompt, "target": true_target}
            for prompt in record.get("neighborhood_prompts", [])
        ],
        "attributes": record.get("attribute_prompts_same_subject", []),
        "generations": record.get("generation_prompts", []),
    }


SHAPES = (
    Shape(
        name="counterfact",
        row="FactEdit",
        known=lambda record: "requested_rewrite" in record,
        read=read,
        source="CounterFact (Meng et al. 2022, arXiv:2202.05262), and MultiCounterFact, its "
        "conflict-free part for many edits at once (arXiv:2210.07229)",
    ),
)
