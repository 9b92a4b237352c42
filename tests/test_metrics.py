"""Metrics: each against an independent computation in float64 from raw numbers."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hubedit.asking import TargetScore
from hubedit.evaluating.answers import Heard
from hubedit.evaluating.cases import FactCase, Item, items, told_apart
from hubedit.evaluating.intervals import RESAMPLES, bootstrap, bootstrap_mean
from hubedit.evaluating.metrics import METRICS
from hubedit.evaluating.neutral import Predictions, Shift, shifts
from hubedit.evaluating.scoring import Told, item_scores, neutral_scores
from hubedit.evaluating.table import DEFINITIONS
from hubedit.evaluating.texts import Lexicon, fluency, words

WORDS = ["violin", "cello", "double bass", "oboe"]


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class Answered:
    """An answer given by raw logits: float64 [tokens, vocabulary], with the ids that it has."""

    def __init__(self, draw, length):
        self.logits = draw.normal(size=(length, 7)) * 2
        likely = self.logits.argmax(-1)
        other = draw.integers(0, 7, length)
        self.ids = np.where(draw.random(length) < 0.7, likely, other)

    def score(self):
        logprobs = np.log(softmax(self.logits))[np.arange(len(self.ids)), self.ids]
        top = self.logits.argmax(-1)
        return TargetScore(self.ids.tolist(), logprobs.tolist(), top.tolist())

    def mean_probability(self):
        """The geometric mean of the tokens' probabilities, as a root of their product."""
        chosen = softmax(self.logits)[np.arange(len(self.ids)), self.ids]
        return chosen.prod() ** (1 / len(self.ids))

    def right(self):
        return softmax(self.logits).argmax(-1) == self.ids


@pytest.fixture(scope="module")
def answers():
    """Thirty items of six cases: raw answers before and after, and what the metrics are given."""
    draw = np.random.default_rng(0)
    made = []
    for number in range(30):
        group = ("rewrite", "paraphrase", "neighbour", "attribute", "portability")[number % 5]
        length = int(draw.integers(1, 4))
        raw = [Answered(draw, length) for _ in range(2)]
        raw[1].ids = raw[0].ids
        rivals = [Answered(draw, int(draw.integers(1, 3))) for _ in range(2)]
        has_rival = group in ("rewrite", "paraphrase", "neighbour")
        target = WORDS[number % 4]
        written = [f" {WORDS[int(draw.integers(0, 4))]}. And so on" for _ in range(2)]
        heard = [
            Heard(one.score(), rival.score() if has_rival else None, text)
            for one, rival, text in zip(raw, rivals, written, strict=True)
        ]
        item = Item(number // 5, group, "a prompt", target, "x" if has_rival else None)
        made.append((item, raw, rivals, written, heard))
    return made


def wanted(name, item, raw, rivals, written):
    """What a metric is of one item, from logits and texts alone."""
    (old, new), rival = raw, rivals[1]
    return {
        "success": lambda: float(new.mean_probability() > rival.mean_probability()),
        "magnitude": lambda: new.mean_probability() - rival.mean_probability(),
        "probability": new.mean_probability,
        "exact": lambda: float(new.right().all()),
        "tokens": lambda: new.right().mean(),
        "free": lambda: float(written[1].strip().split(".")[0] == item.target),
        "unchanged": lambda: float((old.logits.argmax(-1) == new.logits.argmax(-1)).all()),
        "unchanged-tokens": lambda: (old.logits.argmax(-1) == new.logits.argmax(-1)).mean(),
        "unchanged-free": lambda: float(written[0] == written[1]),
    }[name]()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_items_is_its_definition(answers, name):
    metric = METRICS[name]
    told = [
        Told(
            0,
            [item for item, *_ in answers],
            [heard[0] for *_, heard in answers],
            [heard[1] for *_, heard in answers],
        )
    ]
    scores = {(score.group, score.metric): score for score in item_scores(told)}
    for group in metric.groups:
        members = [one for one in answers if one[0].group == group]
        values = [wanted(name, item, raw, rivals, text) for item, raw, rivals, text, _ in members]
        found = scores[group, name]
        assert found.n == len(values)
        assert found.after == pytest.approx(np.mean(values), abs=5e-7)
        judged = [metric.judge(item, heard[0], heard[1]) for item, *_, heard in members]
        assert judged == pytest.approx(values, abs=1e-9)
        assert (found.before is None) == metric.compared


def test_the_score_is_the_harmonic_mean_of_three_groups(answers):
    told = [
        Told(
            0,
            [item for item, *_ in answers],
            [heard[0] for *_, heard in answers],
            [heard[1] for *_, heard in answers],
        )
    ]
    scores = {(score.group, score.metric): score for score in item_scores(told)}
    for name in ("success", "exact"):
        means = [
            np.mean(
                [
                    wanted(name, item, raw, rivals, text)
                    for item, raw, rivals, text, _ in answers
                    if item.group == group
                ]
            )
            for group in ("rewrite", "paraphrase", "neighbour")
        ]
        harmonic = 3 / sum(1 / mean for mean in means) if min(means) > 0 else 0.0
        assert scores["all", f"score-{name}"].after == pytest.approx(harmonic, abs=5e-7)


@pytest.mark.parametrize(
    ("written", "target", "counts"),
    [
        (" violin.", "violin", 1.0),
        (" Violin and bow", "violin", 1.0),
        (" violinist", "violin", 0.0),
        (" the violin", "violin", 0.0),
        ("  double   bass, she", "double bass", 1.0),
        ("", "violin", 0.0),
    ],
)
def test_a_free_answer_begins_with_the_whole_target(written, target, counts):
    item = Item(0, "rewrite", "She plays the", target)
    assert METRICS["free"].judge(item, Heard(None, None, ""), Heard(None, None, written)) == counts


def test_an_answer_ends_with_its_sentence():
    assert Heard(None, None, " New York. She left").answer == "New York"
    assert Heard(None, None, " 3.5 km\nand").answer == "3.5 km"


def test_fluency_is_the_weighted_entropy_of_bigrams_and_trigrams():
    text = "the cat saw the cat and the dog saw the cat, the end. " * 3
    tokens = words(text)
    entropies = []
    for n in (2, 3):
        grams = ["\0".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        _, counts = np.unique(grams, return_counts=True)
        shares = counts / counts.sum()
        entropies.append(float(-(shares * np.log2(shares)).sum()))
    assert fluency(text) == pytest.approx(
        0.5 * (2 / 3 * entropies[0] + 4 / 3 * entropies[1]), abs=1e-9
    )
    assert fluency("ha ha ha ha ha ha") == 0
    assert words("Ana's cat, isn't it?") == ["Ana's", "cat", ",", "isn't", "it", "?"]


def test_consistency_is_the_cosine_of_tf_idf():
    documents = ["a cat plays", "a dog plays the violin", "the violin is old", "a cat is old"]
    one, other = "the cat plays the old violin", "a dog is old, old"
    vocabulary = sorted({word for text in documents for word in text.split()})
    frequency = np.array([sum(w in text.split() for text in documents) for w in vocabulary])
    idf = np.log((1 + 4) / (1 + frequency)) + 1

    def vector(text):
        counts = Counter(text.replace(",", " ").split())
        return np.array([counts[word] for word in vocabulary], dtype=np.float64) * idf

    a, b = vector(one), vector(other)
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    lexicon = Lexicon(documents)
    assert lexicon.cosine(one, other) == pytest.approx(cosine, abs=1e-9)
    assert lexicon.cosine(one, one) == pytest.approx(1.0)
    assert lexicon.cosine("unknown words", one) == 0


def test_perplexity_and_divergence_of_neutral_texts():
    draw = np.random.default_rng(3)
    raw = [draw.normal(size=(2, length, 9)) for length in (4, 7, 2)]
    ids = [draw.integers(0, 9, logits.shape[1]) for logits in raw]

    def predictions(side):
        return [
            Predictions(np.log(softmax(logits[side])).astype(np.float32), own)
            for logits, own in zip(raw, ids, strict=True)
        ]

    moved = shifts(predictions(0), predictions(1))
    perplexity, kl = neutral_scores(moved)
    probabilities = np.concatenate(
        [softmax(x[1])[np.arange(len(own)), own] for x, own in zip(raw, ids, strict=True)]
    )
    assert perplexity.after == pytest.approx(
        float(np.prod(1 / probabilities) ** (1 / len(probabilities))), rel=1e-5
    )
    before, after = (np.concatenate([softmax(x[side]) for x in raw]) for side in (0, 1))
    assert kl.after == pytest.approx(
        float((before * np.log(before / after)).sum(-1).mean()), abs=2e-6
    )
    assert kl.before is None
    same = neutral_scores(shifts(predictions(0), predictions(0)))[1]
    assert (same.after, same.low, same.high) == (0, 0, 0)
    assert neutral_scores([]) == []
    huge = neutral_scores([Shift(1, 1.0, 1e6, 1.0)])[0]
    assert math.isfinite(huge.after)


def test_the_bootstrap_draws_cases_and_repeats():
    cases, values = [0, 0, 0, 1, 2, 2], [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    low, high = bootstrap_mean(cases, values, seed=5)
    assert (low, high) == bootstrap_mean(cases, values, seed=5)
    means = []
    for drawn in np.random.default_rng(5).integers(0, 3, (RESAMPLES, 3)):
        picked = [v for case in drawn for c, v in zip(cases, values, strict=True) if c == case]
        means.append(sum(picked) / len(picked))
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=1e-9)
    assert bootstrap_mean([0, 0], [1.0, 0.0]) is None
    assert bootstrap(1, lambda drawn: drawn.sum(-1)) is None


def test_every_metric_says_what_it_is_and_where_it_is_from():
    assert METRICS.keys() <= DEFINITIONS.keys()
    assert all("arXiv:" in text for text in DEFINITIONS.values())
    page = Path(__file__).parent.parent.joinpath("docs", "evaluating.md").read_text()
    assert all(f"| `{name}` |" in page for name in DEFINITIONS)


CASE = {
    "prompt": "{} plays the",
    "subject": "Ana Brook",
    "target": "violin",
    "true_target": "cello",
    "paraphrases": ["The instrument of Ana Brook is the"],
    "neighbours": [{"prompt": "Tom Adler plays the", "target": "cello"}, "Ivo plays the"],
    "attributes": [{"prompt": "Ana Brook lives in", "target": "Porto"}],
    "portability": [{"prompt": "The bow of Ana Brook is for a", "target": "violin"}],
    "split": "test",
}


def test_a_case_asks_all_its_prompts_and_tells_a_method_none():
    case = FactCase.model_validate(CASE)
    asked = [(item.group, item.target, item.rival) for item in items([case])]
    assert asked == [
        ("rewrite", "violin", "cello"),
        ("paraphrase", "violin", "cello"),
        ("portability", "violin", None),
        ("neighbour", "cello", "violin"),
        ("neighbour", None, "violin"),
        ("attribute", "Porto", None),
    ]
    told = case.told()
    assert (told.paraphrases, told.neighbours, told.attributes) == ((), (), ())
    assert told.text == "Ana Brook plays the"


def test_a_neighbour_that_the_same_edit_changes_is_not_asked():
    case = FactCase.model_validate(CASE)
    other = FactCase(prompt="{} plays the", subject="Tom Adler", target="harp", true_target="cello")
    prompts = [item.prompt for item in items([case, other]) if item.group == "neighbour"]
    assert prompts == ["Ivo plays the"]


def test_of_cases_that_change_one_fact_the_first_is_kept():
    one = FactCase.model_validate(CASE)
    again = one.model_copy(update={"target": "harp"})
    other = one.model_copy(update={"subject": "Tom Adler"})
    assert told_apart([one, again, other]) == [one, other]


def test_portability_needs_its_answers():
    with pytest.raises(ValueError, match="needs its answer"):
        FactCase.model_validate({**CASE, "portability": ["The bow of Ana Brook is for a"]})
