"""Which edit of a stack changed an answer, found by asking at few heights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hubedit.context import Talk
from hubedit.editions import Edition
from hubedit.errors import RecipeError
from hubedit.manifest import StackEntry
from hubedit.reasking import Asker


@dataclass(frozen=True)
class Asked:
    """What the model answered at one height."""

    height: int
    answer: str
    good: bool


@dataclass(frozen=True)
class Found:
    """The first height at which the answer is no longer the wanted one.

    `edit` is the edit that lies there; None where the base itself does not give the answer, or
    where every height does.
    """

    height: int | None
    edit: StackEntry | None
    asked: tuple[Asked, ...]


def bisect(edition: Edition, prompt: str, target: str, talk: Talk) -> Found:
    """Find the edit from which on a greedy answer is another than wanted.

    At most ⌈log₂(n + 2)⌉ of the n + 1 heights are asked; as with every bisection, an answer that
    is broken, mended and broken again may be found at any of its breaks.

    Args:
        edition: a stack of edits.
        prompt: what is asked.
        target: the answer that is wanted.
        talk: is told what goes on.

    Raises:
        RecipeError: tensors come or go in the stack.
    """
    from hubedit.rows import continued

    if any(edition.presence(height) for height in range(1, edition.stack.height + 1)):
        raise RecipeError(
            f"{edition.place.title} adds or drops tensors; ask at single heights with `hubedit ask`"
        )
    asker = Asker(edition.base, edition.stack.base)
    wanted = continued(prompt, target)
    asked: list[Asked] = []

    def good(height: int) -> bool:
        talk.log(f"asking at height {height}")
        model = asker.at(edition.overlay(height), edition.texts(height))
        [score] = model.target_logprobs([(prompt, wanted)])
        [answer] = model.generate([prompt], len(score.token_ids))
        asked.append(Asked(height, answer.strip(), answer.strip() == target.strip()))
        return asked[-1].good

    first = first_bad(edition.stack.height, good)
    if first is None or first == 0:
        return Found(first, None, tuple(asked))
    return Found(first, edition.stack.edits[first - 1], tuple(asked))


def first_bad(top: int, good: Callable[[int], bool]) -> int | None:
    """The least height from 0 to `top` that is not good, or None; asks ⌈log₂(top + 2)⌉ at most."""
    low, high = 0, top + 1
    while low < high:
        middle = (low + high) // 2
        if middle <= top and good(middle):
            low = middle + 1
        else:
            high = middle
    return low if low <= top else None
