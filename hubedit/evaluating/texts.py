"""Metrics of texts: how varied, how alike, and how probable."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

WEIGHTS: Mapping[int, float] = {2: 2 / 3, 3: 4 / 3}
"""Weight of the entropy of n-grams, by n; their mean is the fluency (Meng et al. 2022)."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and signs of a text (the original uses NLTK's tokenizer, which needs a download)."""
    return _WORD.findall(text)


def entropy(counts: Sequence[int]) -> float:
    """Shannon entropy in bits of a distribution given by counts; 0 of none."""
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts if n)


def fluency(text: str) -> float:
    """½ · (⅔ · H₂ + 4⁄3 · H₃): the weighted mean entropy of word n-grams, in bits."""
    said = words(text)
    found = [
        weight * entropy(list(Counter(zip(*(said[i:] for i in range(n)), strict=False)).values()))
        for n, weight in WEIGHTS.items()
    ]
    return sum(found) / len(found)


class Lexicon:
    """Words with their inverse document frequencies: ln((1 + n) / (1 + df)) + 1, as scikit-learn's.

    Args:
        documents: the texts it is made from, of which each word is counted once.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        frequency: Counter[str] = Counter()
        for document in documents:
            frequency.update({word.casefold() for word in words(document)})
        self._place = {word: place for place, word in enumerate(sorted(frequency))}
        counted = np.array([frequency[word] for word in self._place], dtype=np.float64)
        self._idf = np.log((1 + len(documents)) / (1 + counted)) + 1

    def vector(self, text: str) -> np.ndarray:
        """Counts times inverse document frequency, of length one; float64 [words known]."""
        vector = np.zeros(len(self._place))
        for word, count in Counter(word.casefold() for word in words(text)).items():
            if word in self._place:
                vector[self._place[word]] = count
        vector *= self._idf
        length = float(np.linalg.norm(vector))
        return vector / length if length else vector

    def cosine(self, one: str, other: str) -> float:
        """The cosine of two texts, in [0, 1]; 0 if one of them has no known word."""
        return float(self.vector(one) @ self.vector(other))


def perplexity(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """exp(Σ −log p / Σ tokens scored), over the last axis; at most e⁷⁰⁰, so that it is a number.

    Deviation: the original divides by all tokens of a text though the first is not scored.

    Args:
        sums: Σ −log p of each text, in nats, float64 [..., texts].
        counts: tokens scored of each, float64 [..., texts].
    """
    found: np.ndarray = np.exp(np.minimum(sums.sum(-1) / counts.sum(-1), 700.0))
    return found


def divergence(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """D(before ‖ after) in nats at each place.

    Args:
        before: log-probabilities [..., vocabulary].
        after: of the same shape.
    """
    before, after = before.astype(np.float64), after.astype(np.float64)
    found: np.ndarray = (np.exp(before) * (before - after)).sum(-1)
    return found
