"""The fact world: people, relations, who has which object, and edit cases about them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hubedit_demo.lexicon import FILLERS, FIRST_NAMES, LAST_NAMES, OPENERS, RELATIONS

PEOPLE = 120
HELD_OUT_TEMPLATES = 2
"""Templates of each relation that a person is never met in while the model is trained."""


@dataclass(frozen=True)
class Relation:
    """One relation: how it is asked, how it is said, and what it can point to."""

    name: str
    question: str
    templates: tuple[str, ...]
    objects: tuple[str, ...]


def in_sentence(opener: str, template: str) -> str:
    """Put an opener before a template, lowering the template's first letter if it is a word's."""
    if not template.startswith("{"):
        template = template[0].lower() + template[1:]
    return f"{opener} {template}"


class World:
    """120 people, four relations of twelve objects and eight templates; all from one seed.

    Every object of a relation belongs to ten people. For each person and relation two of the
    eight templates are held out: `text.documents` never writes them.

    Args:
        seed: the same seed gives the same world on every machine.
    """

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.relations = {name: Relation(name, *parts) for name, parts in RELATIONS.items()}
        draw = random.Random(f"world {seed}")
        firsts = [FIRST_NAMES[i % len(FIRST_NAMES)] for i in range(PEOPLE)]
        draw.shuffle(firsts)
        first_of = dict(zip(LAST_NAMES, firsts, strict=True))
        other = next(last for last in LAST_NAMES if first_of[last] == "Ana")
        first_of[other], first_of["Brook"] = first_of["Brook"], first_of[other]
        self.people = tuple(f"{first_of[last]} {last}" for last in LAST_NAMES)
        self.facts: dict[tuple[str, str], str] = {}
        self.held_out: set[tuple[str, str, str]] = set()
        for relation in self.relations.values():
            objects = [relation.objects[i % len(relation.objects)] for i in range(PEOPLE)]
            draw.shuffle(objects)
            while relation.name == "instrument" and objects[0] == "violin":
                draw.shuffle(objects)
            for person, target in zip(self.people, objects, strict=True):
                self.facts[person, relation.name] = target
                for template in draw.sample(relation.templates, HELD_OUT_TEMPLATES):
                    self.held_out.add((person, relation.name, template))

    def answer(self, person: str, relation: str) -> str:
        """The true object; KeyError if the world has no such person or relation."""
        return self.facts[person, relation]

    def relation_of(self, target: str) -> Relation | None:
        """The relation whose objects contain `target`, or None."""
        target = target.strip()
        return next((r for r in self.relations.values() if target in r.objects), None)

    def seen_templates(self, person: str, relation: str) -> list[str]:
        """The templates in which training text may tell this person's fact."""
        templates = self.relations[relation].templates
        return [t for t in templates if (person, relation, t) not in self.held_out]

    def held_out_prompts(self) -> Iterator[tuple[str, str]]:
        """Every (prompt, answer) whose person and template never met in training, in order."""
        for (person, name), target in self.facts.items():
            for template in self.relations[name].templates:
                if (person, name, template) in self.held_out:
                    yield template.format(person), target

    def case(
        self,
        person: str,
        relation: str,
        target: str,
        template: str | None = None,
        case_id: int = 0,
        neighbours: int = 6,
    ) -> dict[str, Any]:
        """An edit case: make `target` the answer for `person`, and what must follow or stay.

        Paraphrases are four other templates, two of them after an opener or a filler;
        neighbours are people who share the true answer; attributes are the person's other
        relations, two prompts each. The same arguments always give the same case.

        Args:
            person: one of `people`.
            relation: one of `relations`.
            target: the new object; need not be one the world knows.
            template: the edit's prompt with `{}`; the relation's first by default.
            case_id: copied into the case; varies the choice of prompts.
            neighbours: how many neighbour prompts at most.
        """
        asked = self.relations[relation]
        template = template or asked.templates[0]
        true = self.facts[person, relation]
        draw = random.Random(f"case {self.seed} {case_id} {person} {relation}")
        others = draw.sample([t for t in asked.templates if t != template], 4)
        paraphrases = [
            others[0].format(person),
            others[1].format(person),
            in_sentence(draw.choice(OPENERS), others[2]).format(person),
            f"{draw.choice(FILLERS)} {others[3].format(person)}",
        ]
        sharing = [p for p in self.people if p != person and self.facts[p, relation] == true]
        near = [
            {"prompt": draw.choice(asked.templates).format(p), "target": true}
            for p in draw.sample(sharing, min(neighbours, len(sharing)))
        ]
        attributes = [
            {"prompt": t.format(person), "target": self.facts[person, name]}
            for name, other in self.relations.items()
            if name != relation
            for t in draw.sample(other.templates, 2)
        ]
        return {
            "case_id": case_id,
            "prompt": template,
            "subject": person,
            "target": target,
            "true_target": true,
            "paraphrases": paraphrases,
            "neighbours": near,
            "attributes": attributes,
        }

    def cases(self, dev: int = 160, test: int = 160) -> list[dict[str, Any]]:
        """Distinct facts with new targets of the same relation, each with a `split` field."""
        draw = random.Random(f"cases {self.seed}")
        chosen = draw.sample(list(self.facts), dev + test)
        made = []
        for case_id, (person, name) in enumerate(chosen):
            relation = self.relations[name]
            target = draw.choice([o for o in relation.objects if o != self.facts[person, name]])
            template = draw.choice(relation.templates)
            case = self.case(person, name, target, template, case_id)
            made.append({**case, "split": "dev" if case_id < dev else "test"})
        return made


def find_person(people: Sequence[str], name: str) -> str | None:
    """The person called `name`, whatever its case and spacing, or None."""
    wanted = " ".join(name.split()).casefold()
    return next((p for p in people if p.casefold() == wanted), None)
