"""The world told in words: documents of facts and fillers that know where each fact stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hubedit_demo.lexicon import FILLERS, OPENERS
from hubedit_demo.world import World, in_sentence

Span = tuple[int, int]


@dataclass(frozen=True)
class Statement:
    """One sentence that tells a fact; `template` is the bare one, `opener` may be empty."""

    person: str
    relation: str
    template: str
    target: str
    opener: str = ""

    def render(self) -> tuple[str, Span, Span]:
        """The sentence, and the character spans of its subject and its object."""
        template = in_sentence(self.opener, self.template) if self.opener else self.template
        start = template.index("{}")
        prompt = template.format(self.person)
        subject = (start, start + len(self.person))
        answer = (len(prompt) + 1, len(prompt) + 1 + len(self.target))
        return f"{prompt} {self.target}.", subject, answer


@dataclass(frozen=True)
class Mention:
    """Where a document tells a fact: spans are character offsets, end excluded."""

    statement: Statement
    subject: Span
    answer: Span


@dataclass(frozen=True)
class Document:
    """Sentences joined by spaces: statements of facts, and fillers as plain strings."""

    sentences: tuple[Statement | str, ...]

    @property
    def statements(self) -> list[Statement]:
        """The facts told, in order."""
        return [s for s in self.sentences if isinstance(s, Statement)]

    def render(self) -> tuple[str, list[Mention]]:
        """The text, and where each statement's subject and object stand in it."""
        text, mentions = "", []
        for sentence in self.sentences:
            text += " " if text else ""
            if isinstance(sentence, str):
                text += sentence
                continue
            told, subject, answer = sentence.render()
            at = len(text)
            mentions.append(
                Mention(
                    sentence,
                    (at + subject[0], at + subject[1]),
                    (at + answer[0], at + answer[1]),
                )
            )
            text += told
        return text, mentions

    def retold(self, targets: Sequence[str]) -> Document:
        """The same document with other objects, one for each statement."""
        left = iter(targets)
        return Document(
            tuple(
                s if isinstance(s, str) else replace(s, target=next(left)) for s in self.sentences
            )
        )


def document(world: World, draw: random.Random, statements: int) -> Document:
    """A document of `statements` facts, never in a person's held-out template.

    Half of the documents start with a fact, and two statements in three have no opener, so
    that a subject is met at the very start as often as later.
    """
    keys = list(world.facts)
    sentences: list[Statement | str] = []
    if draw.random() < 0.5:
        sentences.append(draw.choice(FILLERS))
    for person, relation in draw.sample(keys, statements):
        sentences.append(
            Statement(
                person,
                relation,
                draw.choice(world.seen_templates(person, relation)),
                world.facts[person, relation],
                draw.choice(OPENERS) if draw.random() < 1 / 3 else "",
            )
        )
        if draw.random() < 0.2:
            sentences.append(draw.choice(FILLERS))
    return Document(tuple(sentences))


def corpus(world: World, characters: int = 200_000) -> str:
    """Training text, one document of one to five facts a line: what statistics are taken over."""
    draw = random.Random(f"corpus {world.seed}")
    lines: list[str] = []
    size = 0
    while size < characters:
        lines.append(document(world, draw, draw.randint(1, 5)).render()[0])
        size += len(lines[-1]) + 1
    return "\n".join(lines) + "\n"


def vocabulary_text(world: World, documents: int = 1500) -> list[str]:
    """Text for a tokenizer: documents without their names, then each name a few times.

    Common words become single tokens; surnames stay in several pieces.
    """
    draw = random.Random(f"vocabulary {world.seed}")
    lines = []
    for _ in range(documents):
        made = document(world, draw, 3)
        for sentence in made.sentences:
            if isinstance(sentence, Statement):
                lines.append(sentence.render()[0].replace(sentence.person, "|"))
                lines.append(" " + lines[-1])
            else:
                lines += [sentence, " " + sentence]
    return lines + [f"{person} {person}" for person in world.people] * 3
