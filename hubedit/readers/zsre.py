"""Records of zsRE as model editors use it, by three conventions of what the new answer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from hubedit.readers.shape import Fields, Record, Shape, first_text, holed

_NQ = "nq question: "


def _counterfactual(record: Record) -> tuple[str | None, str | None]:
    return first_text(record["alt"]), first_text(record.get("answers"))


def _true(record: Record) -> tuple[str | None, str | None]:
    return first_text(record["answers"]), None


def _own(record: Record) -> tuple[str | None, str | None]:
    return first_text(record["ans"]), None


Convention = Callable[[Record], tuple[str | None, str | None]]
CONVENTIONS: dict[str, tuple[Convention, str]] = {
    "zsre": (_counterfactual, "the new answer is `alt`, and `answers[0]` the true one"),
    "zsre-answers": (_true, "the new answer is the true one, `answers[0]`: facts to be learnt"),
    "zsre-ans": (_own, "the new answer is `ans`"),
}
"""What the new answer is, and what the answer was, by name of the shape.

Results by different conventions measure different things, and are not to be put side by side.
"""


def read(convention: Convention, record: Record) -> Iterator[Fields]:
    """One record: question, rephrasing, and an unrelated question as neighbour.

    The prefix "nq question: " of the unrelated question is dropped, and it ends in a question mark.
    """
    target, true_target = convention(record)
    neighbours = []
    if record.get("loc"):
        prompt = str(record["loc"]).removeprefix(_NQ)
        prompt += "" if prompt.endswith("?") else "?"
        neighbours = [{"prompt": prompt, "target": first_text(record.get("loc_ans"))}]
    yield {
        "case_id": record.get("case_id"),
        "prompt": holed(record["src"], record["subject"]),
        "subject": record["subject"],
        "target": target,
        "true_target": true_target,
        "paraphrases": [record["rephrase"]] if record.get("rephrase") else [],
        "neighbours": neighbours,
    }


SHAPES = tuple(
    Shape(
        name=name,
        row="FactEdit",
        known=(lambda record: "src" in record) if name == "zsre" else None,
        read=partial(read, convention),
        source=f"zsRE (Levy et al. 2017, arXiv:1706.04115; De Cao et al. 2021): {words}",
    )
    for name, (convention, words) in CONVENTIONS.items()
)
