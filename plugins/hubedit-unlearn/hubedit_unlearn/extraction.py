"""How much of a text a model gives away: memorisation accuracy, extraction likelihood; needs torch.

Jang et al. 2023, "Knowledge Unlearning for Mitigating Privacy Risks in Language Models", section 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

import hubedit
from hubedit_unlearn.config import JangConfig
from hubedit_unlearn.scoring import scored
from hubedit_unlearn.setting import Rule, Setting
from hubedit_unlearn.texts import Example, examples_of

PUBLISHED = (0.2994, 0.0499)
"""Both measures on unseen text for a model of 125 million parameters (Jang et al. 2023)."""


def both_below(config: JangConfig, setting: Setting) -> Rule:
    """Ends training once accuracy and likelihood are below those of text that was never seen."""
    model, parts = setting.model, setting.parts
    unseen = [row for row in parts.rows if row.part == "holdout"]
    texts = examples_of(model, unseen, "text", parts.longest, config.end_of_text)
    limits = measured(model, texts, config) if texts else PUBLISHED
    accuracy = limits[0] if config.accuracy_threshold is None else config.accuracy_threshold
    likelihood = limits[1] if config.likelihood_threshold is None else config.likelihood_threshold

    def done(step: int, figures: Mapping[str, float]) -> bool:
        found = measured(model, parts.forget, config)
        setting.run.record(
            "extraction",
            {
                "step": step,
                "accuracy": float(f"{found[0]:.6g}"),
                "likelihood": float(f"{found[1]:.6g}"),
                "accuracy_threshold": float(f"{accuracy:.6g}"),
                "likelihood_threshold": float(f"{likelihood:.6g}"),
            },
        )
        return found[0] < accuracy and found[1] < likelihood

    return done


def measured(
    model: hubedit.EditableModel, texts: Sequence[Example], config: JangConfig
) -> tuple[float, float]:
    """Memorisation accuracy and extraction likelihood, means over texts."""
    return (
        memorisation_accuracy(model, texts, config.batch_size),
        extraction_likelihood(model, texts, config.extracted, config.prefixes, config.batch_size),
    )


def memorisation_accuracy(
    model: hubedit.EditableModel, texts: Sequence[Example], size: int = 32
) -> float:
    """How many of a text's scored tokens are the likeliest after those before them."""
    shares = []
    for start in range(0, len(texts), size):
        with torch.no_grad():
            batch = scored(model, texts[start : start + size])
        right = (batch.logits.argmax(-1) == batch.labels).float()
        shares.append(batch.per_example(right) / batch.lengths)
    return float(torch.cat(shares).mean())


def extraction_likelihood(
    model: hubedit.EditableModel,
    texts: Sequence[Example],
    n: int,
    prefixes: int,
    size: int = 32,
) -> float:
    """How many runs of n tokens of the rest of a text are said after a prefix of it.

    The mean over prefixes and texts; a text shorter than n + 1 tokens counts with all it has.
    Deviation: of all prefixes at most `prefixes` are taken, spread evenly.
    """
    wanted: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        most = max(len(text.ids) - n, 1)
        count = min(prefixes, most)
        for at in sorted({1 + most * index // count for index in range(count)}):
            wanted[min(at, most)].append(number)
    found: dict[int, list[float]] = defaultdict(list)
    for length, numbers in sorted(wanted.items()):
        for start in range(0, len(numbers), size):
            some = numbers[start : start + size]
            starts = [texts[number].ids[:length] for number in some]
            rest = [texts[number].ids[length:] for number in some]
            said = _continued(model, starts, max(map(len, rest)))
            for number, true, new in zip(some, rest, said, strict=True):
                runs = _runs(true, n)
                shared = sum(run in set(runs) for run in _runs(new[: len(true)], n))
                found[number].append(shared / len(runs))
    means = [sum(values) / len(values) for values in found.values()]
    return sum(means) / len(means)


def _runs(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    length = min(n, len(ids))
    return [tuple(ids[at : at + length]) for at in range(len(ids) - length + 1)]


def _continued(
    model: hubedit.EditableModel, starts: Sequence[Sequence[int]], count: int
) -> list[list[int]]:
    """The likeliest tokens after starts of one length; an end of the text ends nothing."""
    step, past = torch.tensor(starts, device=model.device), None
    new: list[torch.Tensor] = []
    with torch.no_grad():
        for _ in range(count):
            out = model.model(
                input_ids=step, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            past = out.past_key_values
            step = out.logits[:, -1].argmax(-1, keepdim=True)
            new.append(step)
    found: list[list[int]] = torch.cat(new, 1).tolist()
    return found
