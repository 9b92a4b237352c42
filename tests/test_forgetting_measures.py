"""The measures of forgetting against computations of their own, in float64 from small logits."""

import json
import math
import zlib

import numpy as np
import pytest
from scipy import stats

from hubedit.errors import RequestError
from hubedit.forgetting import choices, likeness, membership, memorised, muse, probability, tofu

DRAW = np.random.default_rng(7)


def told(tokens=9, vocabulary=11):
    """Random logits [tokens, vocabulary], labels, and log-probabilities by a plain loop."""
    logits = DRAW.normal(size=(tokens, vocabulary)) * 2
    labels = DRAW.integers(vocabulary, size=tokens)
    logprobs = [
        float(row[label] - math.log(sum(math.exp(value) for value in row)))
        for row, label in zip(logits, labels, strict=True)
    ]
    return logits, labels.tolist(), logprobs


def losses(questions, wrong):
    """Losses of answers [questions] and of wrong ones [questions, wrong], from logits."""
    answers = [-np.mean(told(DRAW.integers(3, 9))[2]) for _ in range(questions)]
    others = [[-np.mean(told(DRAW.integers(3, 9))[2]) for _ in range(wrong)] for _ in answers]
    return answers, others


def test_a_probability_is_the_geometric_mean_of_the_tokens():
    _, _, logprobs = told()
    by_product = np.prod(np.exp(logprobs)) ** (1 / len(logprobs))
    assert probability.probability([probability.loss(logprobs)])[0] == pytest.approx(
        by_product, abs=1e-12
    )
    with pytest.raises(ValueError, match="at least one"):
        probability.loss([])


def test_a_probability_among_options_is_a_share():
    answers, others = losses(6, 3)
    expected = [
        math.exp(-a) / (math.exp(-a) + sum(math.exp(-o) for o in row))
        for a, row in zip(answers, others, strict=True)
    ]
    np.testing.assert_allclose(probability.among(answers, others), expected, atol=1e-12)
    np.testing.assert_allclose(probability.among([5000.0], [[5000.0]]), [0.5])


@pytest.mark.parametrize("averaging", ["geometric", "arithmetic"])
def test_truth_ratio_and_its_aggregates(averaging):
    answers, others = losses(12, 5)
    ratios = []
    for right, wrong in zip(answers, others, strict=True):
        chances = [math.exp(-value) for value in wrong]
        mean = np.prod(chances) ** (1 / 5) if averaging == "geometric" else sum(chances) / 5
        ratios.append(mean / math.exp(-right))
    found = probability.log_truth_ratio(answers, others, averaging)
    np.testing.assert_allclose(np.exp(found), ratios, rtol=1e-12)
    near = [min(r, 1 / r) for r in ratios]
    true = [max(0, 1 - r) for r in ratios]
    known = [1 / (1 + r) for r in ratios]
    assert probability.closer_to_one(found) == pytest.approx(np.mean(near), abs=1e-12)
    assert probability.truer(found) == pytest.approx(np.mean(true), abs=1e-12)
    assert probability.knowledge(found) == pytest.approx(np.mean(known), abs=1e-12)


def test_a_ruined_model_gives_ratios_and_not_nan():
    found = probability.log_truth_ratio([900.0], [[20.0, 30.0]], "arithmetic")
    assert np.isfinite(found).all()
    assert probability.closer_to_one(found) == 0
    assert probability.truer(found) == 0


def log_of(questions, wrong):
    """One of TOFU's log files, as its evaluation writes them: values keyed by index."""
    answers, others = losses(questions, wrong)
    keyed = {
        "avg_gt_loss": [float(a) for a in answers],
        "avg_paraphrased_loss": [float(a) * 1.1 for a in answers],
        "average_perturb_loss": [[float(o) + 1 for o in row] for row in others],
        "rougeL_recall": DRAW.uniform(0.2, 1, questions).tolist(),
        "rouge1_recall": DRAW.uniform(0.2, 1, questions).tolist(),
        "gt_loss": [float(a) * 12 for a in answers],
        "num_token_gt": [12] * questions,
        "generated_text": [["[INST] q [/INST]", " said", " true"]] * questions,
    }
    return {key: dict(zip(map(str, range(questions)), v, strict=True)) for key, v in keyed.items()}


@pytest.fixture(scope="module")
def logs():
    sizes = {"eval_log.json": 9, "eval_log_forget.json": 8}
    return {name: log_of(sizes.get(name, 7), 5 if name in sizes else 3) for name in tofu.FILES}


def by_hand(logs, averaging):
    """Model utility straight from the dictionaries, with probabilities instead of logarithms."""
    numbers = []
    for name, log in logs.items():
        if name == "eval_log_forget.json":
            continue
        chance, recall, truth = [], [], []
        for index in log["avg_gt_loss"]:
            wrong = [math.exp(-value) for value in log["average_perturb_loss"][index]]
            p = math.exp(-log["avg_gt_loss"][index])
            chance.append(p if name == "eval_log.json" else p / (p + sum(wrong)))
            recall.append(log["rougeL_recall"][index])
            mean = np.mean(wrong) if averaging == "arithmetic" else stats.gmean(wrong)
            truth.append(max(0, 1 - mean / math.exp(-log["avg_paraphrased_loss"][index])))
        numbers += [np.mean(chance), np.mean(recall), np.mean(truth)]
    assert len(numbers) == 9
    return stats.hmean(numbers)


@pytest.mark.parametrize("averaging", ["geometric", "arithmetic"])
@pytest.mark.parametrize("form", ["aggregated", "single files", "one file"])
def test_model_utility_is_read_from_the_logs_of_tofu(logs, tmp_path, form, averaging):
    path = tmp_path
    if form == "single files":
        for name, log in logs.items():
            (tmp_path / name).write_text(json.dumps(log))
    else:
        (tmp_path / "eval_log_aggregated.json").write_text(json.dumps(logs))
        path = tmp_path / "eval_log_aggregated.json" if form == "one file" else tmp_path
    read = tofu.read_logs(path)
    assert sorted(read) == ["forget", "real authors", "retain", "world facts"]
    kept = {name: log for name, log in read.items() if name != "forget"}
    found = tofu.utility(kept, averaging)
    assert found.value == pytest.approx(by_hand(logs, averaging), abs=1e-12)
    assert len(found.parts) == 9
    assert found.averaging == averaging
    with pytest.raises(ValueError, match="forget"):
        tofu.utility(read)


def test_the_two_published_variants_differ(logs, tmp_path):
    (tmp_path / "eval_log_aggregated.json").write_text(json.dumps(logs))
    kept = {k: v for k, v in tofu.read_logs(tmp_path).items() if k != "forget"}
    assert tofu.utility(kept, "geometric").value > tofu.utility(kept, "arithmetic").value


def ratios_by_hand(log, averaging):
    """Truth ratios straight from a log's dictionaries, as TOFU's scripts write them."""
    found = []
    for index, right in log["avg_paraphrased_loss"].items():
        wrong = [math.exp(-value) for value in log["average_perturb_loss"][index]]
        mean = np.mean(wrong) if averaging == "arithmetic" else np.prod(wrong) ** (1 / len(wrong))
        found.append(mean / math.exp(-right))
    return found


@pytest.mark.parametrize("averaging", ["geometric", "arithmetic"])
def test_tofus_aggregates_are_computed_from_its_logs(logs, tmp_path, averaging):
    oracle = {"eval_log_forget.json": log_of(11, 5)}
    (tmp_path / "eval_log_aggregated.json").write_text(json.dumps(logs))
    (tmp_path / "eval_log_forget.json").write_text(json.dumps(oracle["eval_log_forget.json"]))
    found = tofu.from_logs(tmp_path / "eval_log_aggregated.json", tmp_path / "eval_log_forget.json")
    assert found.utility[averaging].value == pytest.approx(by_hand(logs, averaging), abs=1e-12)
    one, two = (ratios_by_hand(each["eval_log_forget.json"], averaging) for each in (logs, oracle))
    statistic = ks_by_hand(one, two)
    assert found.quality[averaging].statistic == pytest.approx(statistic, abs=1e-12)
    assert found.quality[averaging].p == pytest.approx(exact_p(statistic, 8, 11), abs=1e-9)
    assert tofu.from_logs(tmp_path / "eval_log_aggregated.json").quality == {}
    (tmp_path / "eval_log.json").write_text(json.dumps(logs["eval_log.json"]))
    with pytest.raises(RequestError, match="eval_log_forget"):
        tofu.from_logs(tmp_path / "eval_log_aggregated.json", tmp_path / "eval_log.json")


def exact_p(statistic, m, n):
    """P(D ≥ d) of the two-sample test: the share of lattice paths that stray so far (Hodges)."""
    inside = np.zeros((m + 1, n + 1))
    for i in range(m + 1):
        for j in range(n + 1):
            if abs(i / m - j / n) < statistic - 1e-9:
                before = (inside[i - 1, j] if i else 0) + (inside[i, j - 1] if j else 0)
                inside[i, j] = before if i or j else 1
    return 1 - inside[m, n] / math.comb(m + n, n)


def test_damaged_logs_are_named(tmp_path, logs):
    with pytest.raises(RequestError, match=r"eval_log\.json"):
        tofu.read_logs(tmp_path)
    broken = {**logs["eval_log.json"], "rougeL_recall": {"0": 1.0}}
    (tmp_path / "eval_log.json").write_text(json.dumps(broken))
    with pytest.raises(RequestError, match="rougeL_recall"):
        tofu.read_logs(tmp_path / "eval_log.json")
    del broken["avg_gt_loss"]
    (tmp_path / "eval_log.json").write_text(json.dumps(broken))
    with pytest.raises(RequestError, match="lacks avg_gt_loss"):
        tofu.read_logs(tmp_path)


def test_a_measure_of_zero_makes_utility_zero():
    assert tofu.harmonic_mean([0.5, 0.0, 1.0]) == 0
    assert tofu.harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="not negative"):
        tofu.harmonic_mean([0.5, math.nan])


def ks_by_hand(one, two):
    """The largest distance of two empirical distributions, by their definition."""
    places = [*one, *two]
    return max(abs(np.mean([v <= x for v in one]) - np.mean([v <= x for v in two])) for x in places)


def test_forget_quality_is_a_kolmogorov_smirnov_test():
    one, two = DRAW.normal(size=40), DRAW.normal(0.8, size=50)
    found = tofu.forget_quality(one, two)
    assert found.statistic == pytest.approx(ks_by_hand(one, two), abs=1e-12)
    assert found.p == stats.ks_2samp(one, two).pvalue
    assert found.log10_p == pytest.approx(math.log10(found.p))
    assert found.n == (40, 50)
    again = tofu.forget_quality(np.exp(one), np.exp(two))
    assert again == found
    assert tofu.forget_quality(one, one).p == 1


def test_the_logarithm_of_p_outlives_p():
    found = tofu.forget_quality(np.arange(6000.0), np.arange(6000.0) + 1e6)
    assert found.p == 0
    assert -6000 < found.log10_p < -1000


def lcs(one, two):
    table = np.zeros((len(one) + 1, len(two) + 1), dtype=int)
    for i, a in enumerate(one, start=1):
        for j, b in enumerate(two, start=1):
            same = table[i - 1, j - 1] + 1
            table[i, j] = same if a == b else max(table[i - 1, j], table[i, j - 1])
    return int(table[-1, -1])


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("the old harbour of Oslo in winter", "in winter the harbour of Rome"),
        ("a b c d", "a b c d"),
        ("a b c", "x y"),
    ],
)
def test_rouge_is_the_longest_common_subsequence(truth, said):
    common = lcs(truth.lower().split(), said.lower().split())
    recall, precision = common / len(truth.split()), common / len(said.split())
    assert likeness.recall(truth, said) == pytest.approx(recall)
    f = 2 * recall * precision / (recall + precision) if common else 0
    assert likeness.f_measure(truth, said) == pytest.approx(f)


def test_stemming_is_the_difference_of_the_variants():
    assert likeness.recall("she writes novels", "she writing novel") == 1
    assert likeness.f_measure("she writes novels", "she writing novel") == pytest.approx(1 / 3)
    assert likeness.f_measure("she writes novels", "she writing novel", stem=True) == 1


def test_muse_cuts_answers_and_takes_the_first_checkpoint_below_the_oracle():
    assert muse.answer_of(" Oslo\n\nQuestion: and") == "Oslo"
    assert muse.answer_of("Oslo Question: and") == "Oslo"
    assert muse.knowledge(["in Oslo"], ["in Oslo\nQuestion: x"]) == 100
    assert muse.verbatim(["a b c d", "e f"], ["a b c d", "g h"]) == 50
    prompt = muse.question_prompt([("q", "a")], "r")
    assert prompt == "Question: q\nAnswer: a\n\nQuestion: r\nAnswer:"
    assert muse.first_below([60, 40, 30, 20], 33) == 2
    assert muse.first_below([60], 33) is None


def test_multiple_choice_against_a_plain_count():
    logprobs = [[told(4)[2][i] for i in range(4)] for _ in range(40)]
    truths = DRAW.integers(4, size=40).tolist()
    picked = np.argmax(np.asarray(logprobs), axis=1)
    found = choices.scored(logprobs, truths)
    assert found.accuracy == pytest.approx(np.mean(picked == truths))
    assert found.from_chance == pytest.approx(abs(found.accuracy - 0.25))
    assert found.chosen == tuple(np.bincount(picked, minlength=4) / 40)
    wilson = stats.binomtest(int(sum(picked == truths)), 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    text = choices.prompt("botany", "Which is a tree?", ["oak", "pea", "fern", "moss"])
    assert text.endswith("Which is a tree?\nA. oak\nB. pea\nC. fern\nD. moss\nAnswer:")
    with pytest.raises(ValueError, match="options"):
        choices.prompt("botany", "Which?", ["oak"])


def strength_by_hand(hits):
    """1 − k/L, trying every k from the start; k = L, nothing, always works."""
    length = len(hits)
    return 1 - next(k for k in range(length + 1) if all(hits[k:])) / length


@pytest.mark.parametrize("number", range(20))
def test_extraction_strength_and_exact_memorisation(number):
    logits, labels, _ = told(6, 2)
    hits = memorised.matches(labels, logits.argmax(1).tolist())
    assert memorised.extraction_strength(hits) == pytest.approx(strength_by_hand(hits))
    right = sum(row.argmax() == label for row, label in zip(logits, labels, strict=True))
    assert memorised.exact_memorisation(hits) == pytest.approx(right / 6)


def test_extraction_strength_has_no_floor():
    assert memorised.extraction_strength([False, False]) == 0
    assert memorised.extraction_strength([True, False]) == 0
    assert memorised.extraction_strength([False, True]) == 0.5
    assert memorised.extraction_strength([True, True]) == 1
    assert memorised.extraction_strength([]) == 0


def test_memorisation_accuracy_and_extraction_likelihood_of_a_text_known_by_heart():
    text = [1, 2, 3] * 5
    assert memorised.memorisation_accuracy(text, text[1:]) == 1
    known = [text[t:] for t in range(1, len(text) - 3)]
    for n in (1, 2, 4):
        said = [text[t:] for t in range(1, len(text) - n + 1)]
        assert memorised.extraction_likelihood(text, said, n) == 1
    with pytest.raises(ValueError, match="continuations are needed"):
        memorised.extraction_likelihood(text, known, 2)
    with pytest.raises(ValueError, match="too short"):
        memorised.extraction_likelihood(text, [], 15)


def test_extraction_likelihood_against_a_plain_count_and_falls_with_n():
    text = DRAW.integers(4, size=12).tolist()
    values = []
    for n in (1, 2, 3):
        said = [DRAW.integers(4, size=12 - t).tolist() for t in range(1, 12 - n + 1)]
        scores = []
        for t, one in enumerate(said, start=1):
            grams = ["/".join(map(str, one[i : i + n])) for i in range(len(one) - n + 1)]
            truth = ["/".join(map(str, text[i : i + n])) for i in range(t, 12 - n + 1)]
            scores.append(sum(gram in truth for gram in grams) / len(truth))
        values.append(memorised.extraction_likelihood(text, said, n))
        assert values[-1] == pytest.approx(np.mean(scores), abs=1e-12)
    fixed = [DRAW.integers(4, size=12 - t).tolist() for t in range(1, 12)]
    falling = [memorised.extraction_likelihood(text, fixed[: 12 - n], n) for n in (1, 3)]
    assert falling[0] >= falling[1]


def test_membership_scores_against_logits():
    logits, _, logprobs = told(10)
    for k in (0.2, 0.4, 1.0):
        lowest = sorted(logprobs)[: max(1, math.floor(k * 10))]
        assert membership.min_k(logprobs, k) == pytest.approx(-np.mean(lowest), abs=1e-12)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    means = (chances * np.log(chances)).sum(1)
    variances = (chances * (np.log(chances) - means[:, None]) ** 2).sum(1)
    z = sorted((np.asarray(logprobs) - means) / np.sqrt(variances))
    found = membership.min_k_plus_plus(logprobs, means.tolist(), variances.tolist())
    assert found == pytest.approx(-np.mean(z[:4]), abs=1e-12)
    assert membership.min_k([-3.0]) == 3
    assert membership.zlib_score(2.0, "Löwe") == 2.0 / len(zlib.compress("Löwe".encode()))
    assert membership.reference_score(2.0, 0.5) == 1.5
    assert membership.gradient_norm([1.0, 3.0]) == 2
    assert np.isfinite(membership.min_k_plus_plus([-1.0], [-1.0], [0.0]))
    with pytest.raises(ValueError, match="share"):
        membership.min_k(logprobs, 0)


def test_an_auc_counts_pairs_and_has_delongs_interval():
    members, others = DRAW.normal(size=30).round(1), DRAW.normal(0.7, size=25).round(1)
    pairs = [(o > m) + 0.5 * (o == m) for m in members for o in others]
    found = membership.auc(members, others)
    assert found.value == pytest.approx(np.mean(pairs), abs=1e-12)
    table = np.reshape(pairs, (30, 25))
    error = math.sqrt(table.mean(1).var(ddof=1) / 30 + table.mean(0).var(ddof=1) / 25)
    assert found.high - found.low == pytest.approx(2 * 1.959963985 * error, abs=1e-8)
    assert found.n == (30, 25)


def test_an_auc_of_alike_is_half_and_of_known_by_heart_one():
    scores = DRAW.normal(size=20)
    assert membership.auc(scores, scores).value == pytest.approx(0.5)
    sure = membership.auc(scores, scores + 100)
    assert (sure.value, sure.high) == (1, 1)
    assert sure.low == pytest.approx(1 - 3 / 20)
    with pytest.raises(ValueError, match="at least two"):
        membership.auc([1.0], [2.0, 3.0])
    with pytest.raises(ValueError, match="finite"):
        membership.auc([1.0, math.nan], [2.0, 3.0])


def test_the_interval_of_an_auc_covers_the_truth_about_as_often_as_it_says():
    truth = stats.norm.cdf(1 / math.sqrt(2))
    draw = np.random.default_rng(1)
    found = [membership.auc(draw.normal(size=60), draw.normal(1, size=60)) for _ in range(300)]
    assert 0.91 < np.mean([area.low <= truth <= area.high for area in found]) < 0.98


def test_privacy_leakage_has_the_orientation_of_muse():
    assert membership.privacy_leakage(1.0, 1 - 0.4772) == pytest.approx(-100)
    assert membership.privacy_leakage(0.5, 0.5) == 0
    assert membership.privacy_leakage(0.0, 0.5) == pytest.approx(100)
    assert membership.likeness(0.5, 0.5) == 1
    with pytest.raises(ValueError, match="oracle"):
        membership.privacy_leakage(0.5, 1.0)
