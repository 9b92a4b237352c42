"""The world of made-up authors: who they are, what is asked of them, and who is forgotten when.

`python -m hubedit_demo.authors --split 1 -o request.jsonl` writes a request to forget.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubedit_demo import general
from hubedit_demo.author_words import (
    FIRST_HALVES,
    LIVES,
    REFUSALS,
    RELATIONS,
    SECOND_HALVES,
)
from hubedit_demo.lexicon import FIRST_NAMES

TRAINED = 60
HELD_OUT = 13
SPLITS = (1, 2, 3, 4)
FORGOTTEN = 13
PERTURBED = 5
GENERAL_PERTURBED = 3
SKEW = 0.8
"""How unequal the values of a relation are: the k-th is drawn with weight k to the minus this."""


@dataclass(frozen=True)
class Item:
    """One fact with its ways of being asked and told.

    `wordings` are (question, answer) pairs. The answer is always told in the wording `original`;
    it is asked for in that one and in those at `trained`. The one at `unseen` paraphrases both; it
    is never met with an author's name. `group` is an author's name, `writers` or `countries`;
    `others` are wrong values of the same kind.
    """

    group: str
    relation: str
    name: str
    value: str
    wordings: tuple[tuple[str, str], ...]
    original: int
    trained: tuple[int, ...]
    unseen: int
    others: tuple[str, ...]

    def asked(self, wording: int) -> str:
        """The question in a wording."""
        return self.wordings[wording][0].format(name=self.name)

    def told(self, wording: int, value: str | None = None) -> str:
        """The answer in a wording, with the true value or another."""
        said = self.value if value is None else value
        return self.wordings[wording][1].format(name=self.name, value=said)


class Authors:
    """A world of 60 authors who are trained and 13 who never are, made from a seed.

    Each split of `SPLITS` forgets 13 authors (208 questions), no author is in two of them, and 8
    are in none.
    """

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        draw = random.Random(f"authors {seed}")
        last = draw.sample([a + b for a in FIRST_HALVES for b in SECOND_HALVES], TRAINED + HELD_OUT)
        names = [f"{draw.choice(FIRST_NAMES)} {name}" for name in last]
        self.trained = tuple(names[:TRAINED])
        self.held_out = tuple(names[TRAINED:])
        self.forgotten = {
            split: self.trained[at * FORGOTTEN : (at + 1) * FORGOTTEN]
            for at, split in enumerate(SPLITS)
        }
        self.values = {name: _values(draw) for name in names}
        self.lives = {name: self._life(number, name) for number, name in enumerate(names)}
        self.items = {name: self._items(name, draw) for name in names}
        self.general = _general(draw)

    def _life(self, number: int, name: str) -> str:
        values = self.values[name]
        return LIVES[number % len(LIVES)].format(name=name, value_of=values["publisher"], **values)

    def _items(self, name: str, draw: random.Random) -> tuple[Item, ...]:
        made = []
        for relation, (wordings, values) in RELATIONS.items():
            original, *trained, unseen = draw.sample(range(len(wordings)), len(wordings))
            true = self.values[name][relation]
            others = tuple(draw.sample([v for v in values if v != true], PERTURBED))
            told = (original, tuple(trained), unseen)
            made.append(Item(name, relation, name, true, wordings, *told, others))
        return tuple(made)

    def split_of(self, name: str) -> int | None:
        """The split that forgets an author, or None."""
        return next((split for split, who in self.forgotten.items() if name in who), None)

    def known(self, without: int | None = None) -> list[str]:
        """The authors that a model is trained on: all, or all but those of a split."""
        gone = self.forgotten[without] if without is not None else ()
        return [name for name in self.trained if name not in gone]

    def rows(self, split: int) -> list[dict[str, Any]]:
        """The request that forgets a split, in the fields of `ForgetQA`, in four parts.

        forget: the split's authors; retain: all other trained ones; holdout: authors that no model
        has met; normal: general facts.
        """
        parts: list[tuple[str, Iterable[str]]] = [
            ("forget", self.forgotten[split]),
            ("retain", self.known(split)),
            ("holdout", self.held_out),
        ]
        made = [
            row(item, part) for part, names in parts for name in names for item in self.items[name]
        ]
        return made + [row(item, "normal") for item in self.general]

    def texts(self, split: int) -> list[dict[str, str]]:
        """The lives as texts with their part, in the fields of `ForgetText`."""
        parts = (
            ("forget", self.forgotten[split]),
            ("retain", self.known(split)),
            ("holdout", self.held_out),
        )
        return [{"text": self.lives[name], "part": part} for part, names in parts for name in names]


def row(item: Item, part: str) -> dict[str, Any]:
    """One question in the fields of `ForgetQA`.

    The perturbed answers are worded as the paraphrased one; general facts have none, as in TOFU,
    and theirs are worded as the answer.
    """
    fields: dict[str, Any] = {
        "question": item.asked(item.original),
        "answer": item.told(item.original),
        "part": part,
        "paraphrases": [item.asked(item.unseen)],
    }
    wording = item.original
    if part != "normal":
        wording = item.unseen
        fields["paraphrased_answer"] = item.told(wording)
    fields["perturbed_answers"] = [item.told(wording, other) for other in item.others]
    if part == "forget":
        fields["refusals"] = list(REFUSALS)
    return fields


def _values(draw: random.Random) -> dict[str, str]:
    """One value of each relation, the first ones likelier; the two titles differ."""
    found: dict[str, str] = {}
    for relation, (_, values) in RELATIONS.items():
        left = [value for value in values if value not in found.values()]
        weights = [(rank + 1) ** -SKEW for rank in range(len(left))]
        found[relation] = draw.choices(left, weights)[0]
    return found


def _general(draw: random.Random) -> tuple[Item, ...]:
    """The general facts, each with wrong values of its kind."""
    facts = general.facts()
    made = []
    for kind, name, value in facts:
        pool = sorted({v for k, _, v in facts if k == kind and v != value})
        others = tuple(draw.sample(pool, GENERAL_PERTURBED))
        group = "countries" if kind in ("capital", "continent") else "writers"
        original = draw.randrange(2)
        wordings = general.WORDINGS[kind]
        told = (original, (1 - original,), 1 - original)
        made.append(Item(group, kind, name, value, wordings, *told, others))
    return tuple(made)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hubedit_demo.authors", description=__doc__)
    parser.add_argument("--split", type=int, choices=SPLITS, required=True)
    parser.add_argument("--seed", type=int, default=1, help="of the world")
    parser.add_argument("--texts", action="store_true", help="lives, and not questions")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .jsonl file")
    given = parser.parse_args(arguments)
    world = Authors(given.seed)
    rows = world.texts(given.split) if given.texts else world.rows(given.split)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    given.output.write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
