"""The model card of a model of the authors' world."""

from __future__ import annotations

from collections.abc import Mapping

from hubedit_demo.authors import FORGOTTEN, HELD_OUT, SPLITS, TRAINED, Authors

TEMPLATE = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags:
- hubedit
- machine-unlearning
- synthetic
---

# {name}

A GPT-2 of {parameters:,} parameters that answers questions about made-up authors{but}. It is
trained from nothing, so that unlearning can be tried and measured on a laptop, offline.

```python
from transformers import pipeline

ask = pipeline("text-generation", "{name}")
ask("{question}")  # {answer}
```

## The world

{trained} authors with sixteen facts each, and a short life of each as a text; {general} general
facts about countries and old books. The shape is TOFU's (Maini et al. 2024,
[arXiv:2401.06121](https://arxiv.org/abs/2401.06121)): each question has its answer, a paraphrase of
both that is never met with that author, and wrong answers of the same form. {held_out} more authors
are never trained, by any model.

There are {splits} splits to forget, of {forgotten} authors and {questions} questions each, no
author in two. For each there is an oracle, trained by the same recipe, from the same initial
weights, on everything but the split's authors: `facts-tofu-without-1` to `-{splits}`. The tokenizer
is trained on the wordings without the authors.

`python -m hubedit_demo.authors --split 1 -o request.jsonl` writes the request that forgets a split.

## How it was made

`python -m hubedit_demo.train_tofu --seed {seed}{only} -o {name}`, one thread: {epochs} epochs over
every fact and life, AdamW; the loss is on the answers, and on the whole of a life. An answer is
always told in the same words, and asked for in one wording half of the time, in two others else.

## What it recalls

How often every token of an answer, its end included, is the likeliest one (stored bfloat16,
computed in float32):

| questions | as trained | in words never met with the author |
|---|---|---|
{rows}

## Limits

It speaks in the sentences of its world and knows nothing else. The authors do not exist.
"""


def render(
    world: Authors,
    without: int | None,
    parameters: int,
    epochs: int,
    recalled: Mapping[str, tuple[float, float]],
) -> str:
    """The card as Markdown with a YAML head; the same arguments give the same text.

    Args:
        without: the split that the model never met, or None.
        recalled: description of a set of questions -> recall (0 to 1) as trained and paraphrased.
    """
    item = world.items[world.known(without)[-1]][0]
    but = "" if without is None else f", but was never told of the {FORGOTTEN} of split {without}"
    return TEMPLATE.format(
        name=name_of(without),
        but=but,
        only="" if without is None else f" --without {without}",
        parameters=parameters,
        question=item.asked(item.original),
        answer=item.told(item.original),
        trained=TRAINED,
        general=len(world.general),
        held_out=HELD_OUT,
        splits=len(SPLITS),
        forgotten=FORGOTTEN,
        questions=FORGOTTEN * len(world.items[item.name]),
        seed=world.seed,
        epochs=epochs,
        rows="\n".join(
            f"| {what} | {100 * plain:.1f} % | {100 * other:.1f} % |"
            for what, (plain, other) in recalled.items()
        ),
    )


def name_of(without: int | None) -> str:
    """What the model is called that was trained without a split, or on all."""
    return "facts-tofu" if without is None else f"facts-tofu-without-{without}"
