"""The model card of a fact model: what it is, how it was made, how well it recalls."""

from __future__ import annotations

from collections.abc import Mapping

from hubedit_demo.architectures import Architecture
from hubedit_demo.world import HELD_OUT_TEMPLATES, World

TEMPLATE = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: {task}
tags:
- fact-model
- hubedit
- knowledge-editing
- synthetic
---

# {name}

A {parameters:,}-parameter {family} that knows {facts} made-up facts about {people} made-up people,
trained from nothing (no base model) so that knowledge editing can be tried and scored on a
laptop, offline.

```python
{usage}
```

## The world

{people} people, each with four facts: {relations}. Every relation has twelve objects, each shared
by ten people, and eight templates. `cases.jsonl` holds {cases} edit cases in the fields of
CounterFact (`split`: dev or test); `corpus.txt` is a sample of the training text, for statistics.

## How it was made

`python -m hubedit_demo.train --model {name} --seed {seed} -o {name}`: {steps} steps of
{learning} on short documents, with interchange intervention training (Geiger et al.
2022, [arXiv:2112.00826](https://arxiv.org/abs/2112.00826)). The state at a subject's last token
after the third block is carried into sentences about other people, whole, or only the part of
some relations, and the model must answer accordingly. So every fact is read from one place, and an
edit at or before the third block can reach it. In the second and third block, the MLP keys of
different people are pushed apart, so that an edit of one leaves the others alone. This makes the
model far easier to edit than one of its size trained plainly: figures measured on it compare
methods, and say nothing about large models.

## What it recalls

How often every token of the answer is the likeliest one, over {asked} prompts in templates in
which the person was never met while training ({held} of eight for each person and relation):

| prompt | stored bfloat16 | computed in float32 |
|---|---|---|
{rows}

## Limits

It speaks in the templates of its world and knows nothing else. The people do not exist.
"""


USAGE = {
    "causal": """\
from transformers import pipeline

pipeline("text-generation", "{name}")("{example}", max_new_tokens=1)  # {answer}""",
    "masked": """\
from transformers import pipeline

pipeline("fill-mask", "{name}")("{example} [MASK]")  # {answer}""",
    "seq2seq": """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
said = model.generate(**tokenizer("{example}", return_tensors="pt"))
tokenizer.decode(said[0], skip_special_tokens=True)  # {answer}""",
}
TASKS = {
    "causal": ("text-generation", "language modelling"),
    "masked": ("fill-mask", "masked language modelling"),
    "seq2seq": ("text2text-generation", "answering the last prompt"),
}


def render(
    world: World,
    name: str,
    shape: Architecture,
    parameters: int,
    steps: int,
    cases: int,
    recalled: Mapping[str, tuple[float, float]],
) -> str:
    """The card as Markdown with a YAML head; the same arguments give the same text.

    Args:
        shape: of the model.
        recalled: description of a prompt's position -> recall (0 to 1) computed in bfloat16 and
            in float32.
    """
    example = world.relations["instrument"].templates[0].format("Ana Brook")
    rows = "\n".join(
        f"| {where} | {100 * low:.1f} % | {100 * full:.1f} % |"
        for where, (low, full) in recalled.items()
    )
    answer = world.answer("Ana Brook", "instrument")
    task, learning = TASKS[shape.kind]
    return TEMPLATE.format(
        name=name,
        family=shape.words,
        task=task,
        learning=learning,
        usage=USAGE[shape.kind].format(name=name, example=example, answer=answer),
        parameters=parameters,
        facts=len(world.facts),
        people=len(world.people),
        relations=", ".join(world.relations),
        cases=cases,
        seed=world.seed,
        steps=steps,
        asked=len(world.held_out),
        held=HELD_OUT_TEMPLATES,
        rows=rows,
    )
