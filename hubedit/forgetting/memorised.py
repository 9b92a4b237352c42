"""How much of a text a model holds by heart, from the tokens that it would choose.

Sources: memorisation accuracy and extraction likelihood, Jang et al. 2022 (arXiv:2210.01504);
extraction strength and exact memorisation as OpenUnlearning defines them (teacher-forced).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def matches(labels: Sequence[int], top: Sequence[int]) -> list[bool]:
    """At each labelled token, whether it is the likeliest one.

    Raises:
        ValueError: they are not equally many.
    """
    return [label == best for label, best in zip(labels, top, strict=True)]


def exact_memorisation(hits: Sequence[bool]) -> float:
    """The share of labelled tokens that are the likeliest one; 0 of no tokens.

    OpenUnlearning leaves the last label out, meant for the end token; here the caller labels what
    is to count, so that texts without an end keep their last token.
    """
    return float(np.mean(hits)) if len(hits) else 0.0


def extraction_strength(hits: Sequence[bool]) -> float:
    """1 − k/L, k the smallest such that all labelled tokens from k on are the likeliest ones.

    0 where the last one is wrong (and of no tokens): OpenUnlearning gives 1/L there, since its loop
    ends one step early, which puts a floor of 0.5 under an answer of two tokens. This is the
    teacher-forced form, not the shortest prefix that makes greedy generation give the rest.
    """
    count = 0
    for hit in reversed(hits):
        if not hit:
            break
        count += 1
    return count / len(hits) if len(hits) else 0.0


def memorisation_accuracy(tokens: Sequence[int], top: Sequence[int]) -> float:
    """MA = 1/(T−1) Σₜ 1[argmax p(·|x_<t) = x_t], over all tokens of a text but the first.

    Args:
        tokens: the text [T].
        top: the likeliest token after each prefix x_<t, t = 2 … T [T − 1].
    """
    return exact_memorisation(matches(tokens[1:], top))


def overlap(said: Sequence[int], truth: Sequence[int], n: int) -> float:
    """The share of the n-grams of `said`, with multiplicity, that are among those of `truth`.

    Divided by the number of n-grams of `truth`, as in Jang's code; of equally long sequences, as
    extraction likelihood has them, that is the paper's formula. 0 where `truth` has none.
    """
    own = {tuple(truth[i : i + n]) for i in range(len(truth) - n + 1)}
    found = sum(tuple(said[i : i + n]) in own for i in range(len(said) - n + 1))
    return found / max(1, len(truth) - n + 1)


def extraction_likelihood(
    tokens: Sequence[int], continuations: Sequence[Sequence[int]], n: int = 10
) -> float:
    """EL_n = 1/(T−n) Σ_{t=1}^{T−n} overlap_n(greedy continuation of x_<=t up to T, the rest of x).

    Args:
        tokens: the text [T].
        continuations: the greedy one after the first t tokens, for t = 1 … T − n; each has T − t
            tokens, since the generation does not stop at an end token.
        n: length of the n-grams.

    Raises:
        ValueError: the text has no more than n tokens, or the continuations are too few, or one is
            too short.
    """
    count = len(tokens) - n
    if count < 1:
        raise ValueError(f"a text of {len(tokens)} tokens is too short for n-grams of {n}")
    if len(continuations) != count:
        raise ValueError(f"{count} continuations are needed, {len(continuations)} were given")
    scores = []
    for t, said in enumerate(continuations, start=1):
        if len(said) != len(tokens) - t:
            raise ValueError(f"the continuation after {t} tokens must have {len(tokens) - t}")
        scores.append(overlap(said, tokens[t:], n))
    return float(np.mean(scores))
