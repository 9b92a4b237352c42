"""Records of what to forget: TOFU, MUSE, WMDP's corpora, extraction targets, harmful pairs."""

from __future__ import annotations

from collections.abc import Iterator

from hubedit.readers.shape import Fields, Record, Shape


def _part(record: Record, default: str = "forget") -> Fields:
    return {"part": record.get("part", default)}


def read_tofu(record: Record) -> Iterator[Fields]:
    """A question with its answer, one paraphrase of each, and wrong answers."""
    fields = {"question": record["question"], "answer": record["answer"], **_part(record)}
    if record.get("paraphrased_question"):
        fields["paraphrases"] = [record["paraphrased_question"]]
    if record.get("paraphrased_answer"):
        fields["paraphrased_answer"] = record["paraphrased_answer"]
    if record.get("perturbed_answer"):
        wrong = record["perturbed_answer"]
        fields["perturbed_answers"] = [wrong] if isinstance(wrong, str) else list(wrong)
    yield fields


def read_verbatim(record: Record) -> Iterator[Fields]:
    """The start of a text and how it goes on."""
    prompt, rest = str(record["prompt"]), str(record["gt"])
    space = "" if prompt[-1:].isspace() or rest[:1].isspace() else " "
    yield {"text": prompt + space + rest, "prompt": prompt, "target": rest, **_part(record)}


def read_text(record: Record) -> Iterator[Fields]:
    """The text of a record, whatever else it says of where it is from."""
    yield {"text": record["text"], **_part(record)}


def read_unsafe(record: Record) -> Iterator[Fields]:
    """A prompt with each of its responses that are marked as not safe."""
    for number in (0, 1):
        if not record[f"is_response_{number}_safe"]:
            answer = record[f"response_{number}"]
            yield {"question": record["prompt"], "answer": answer, **_part(record)}


def read_truthful(record: Record) -> Iterator[Fields]:
    """A question with its best answer; it has nothing to do with what is forgotten."""
    yield {
        "question": record["Question"],
        "answer": record["Best Answer"],
        **_part(record, "normal"),
    }


TOFU_FIELDS = frozenset({"perturbed_answer", "paraphrased_question"})

SHAPES = (
    Shape(
        name="tofu",
        row="ForgetRow",
        known=lambda record: (
            {"question", "answer"} <= record.keys() and bool(TOFU_FIELDS & record.keys())
        ),
        read=read_tofu,
        source="TOFU (Maini et al. 2024, arXiv:2401.06121), the files ending in _perturbed too",
    ),
    Shape(
        name="muse-verbatim",
        row="ForgetRow",
        known=lambda record: {"prompt", "gt"} <= record.keys(),
        read=read_verbatim,
        source="MUSE's verbatim texts (Shi et al. 2024, arXiv:2407.06460); its raw texts and its "
        "questions are rows as they are",
    ),
    Shape(
        name="extraction",
        row="ForgetRow",
        known=lambda record: {"doc_id", "corpus", "text"} <= record.keys(),
        read=read_text,
        source="the training data extraction benchmark, as Jang et al. 2023 use it "
        "(arXiv:2210.01504)",
    ),
    Shape(
        name="wmdp-corpora",
        row="ForgetRow",
        known=lambda record: {"title", "text"} <= record.keys(),
        read=read_text,
        source="WMDP's forget and retain corpora (Li et al. 2024, arXiv:2403.03218)",
    ),
    Shape(
        name="safe-rlhf",
        row="ForgetRow",
        known=lambda record: (
            {"prompt", "response_0", "is_response_0_safe", "is_response_1_safe"} <= record.keys()
        ),
        read=read_unsafe,
        source="PKU-SafeRLHF (Ji et al. 2023, arXiv:2307.04657), whose unsafe responses are "
        "what is forgotten",
    ),
    Shape(
        name="truthfulqa",
        row="ForgetRow",
        known=lambda record: {"Question", "Best Answer"} <= record.keys(),
        read=read_truthful,
        source="TruthfulQA (Lin et al. 2022, arXiv:2109.07958), as normal questions",
    ),
)
