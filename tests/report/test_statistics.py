"""Tests of the statistics: coverage, uniform p-values, equality with plain loops."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from report.statistics import (
    bootstrap_scores,
    compare,
    count_confusions,
    expanded_interval,
    holm,
    intervals,
    mean_scores,
    permutation_test,
    scores_of,
    signed_sums,
    smallest_p,
    speaker_contributions,
)
from training import metrics

CLASSES = 3


def random_corpus(rng, speakers=20, each=30, seeds=2, skill=0.6, spread=0.15) -> tuple[np.ndarray, ...]:
    """Labels (N,), predictions (S, N), speaker ids (N,); accuracy varies between speakers."""
    speaker_ids = np.repeat(np.arange(speakers), each)
    accuracy = np.clip(rng.normal(skill, spread, speakers), 0, 1)[speaker_ids]
    labels = rng.integers(CLASSES, size=len(speaker_ids))
    wrong = (labels + rng.integers(1, CLASSES, size=(seeds, len(labels)))) % CLASSES
    predicted = np.where(rng.random((seeds, len(labels))) < accuracy, labels, wrong)
    return labels, predicted, speaker_ids


def counts_of(labels: np.ndarray, predicted: np.ndarray, speaker_ids: np.ndarray) -> np.ndarray:
    return count_confusions(labels, predicted, speaker_ids, speaker_ids.max() + 1, CLASSES)


def equally_good_methods(rng: np.random.Generator, speakers: int) -> tuple[np.ndarray, np.ndarray]:
    """The counts of two methods with the same expected accuracy, but not for every speaker."""
    labels, a, speaker_ids = random_corpus(rng, speakers, each=12)
    accuracy = np.clip(rng.normal(0.6, 0.15, speakers), 0, 1)[speaker_ids]
    b = np.where(rng.random(a.shape) < accuracy, labels, (labels + 1) % CLASSES)
    return counts_of(labels, a, speaker_ids), counts_of(labels, b, speaker_ids)


def test_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(2, size=12)
        predicted = rng.integers(3, size=12)  # class 2 is predicted but never true; class 3 is neither
        found = scores_of(count_confusions(labels, predicted[None], np.zeros(12, int), 1, 4)[0, 0])
        macro_f1 = f1_score(labels, predicted, average="macro", zero_division=0)
        assert found == pytest.approx(metrics.scores(labels, predicted))
        assert found["macro_f1"] == pytest.approx(macro_f1)


def test_bootstrap_of_one_seed_equals_the_bootstrap_of_metrics_json():
    labels, predicted, speaker_ids = random_corpus(np.random.default_rng(0), seeds=1)
    speakers = [f"{number:02}" for number in speaker_ids]
    expected = metrics.confidence_intervals(labels, predicted[0], speakers, CLASSES, seed=3)
    draws = bootstrap_scores(counts_of(labels, predicted, speaker_ids), seed=3)
    found = {name: np.percentile(draws[name], [2.5, 97.5]) for name in expected}
    assert expected == {name: pytest.approx(bounds) for name, bounds in found.items()}


def test_interval_is_expanded_for_few_speakers_and_none_for_fewer_than_four():
    values = np.arange(100_001) / 100_000
    bounds = [0.00856, 0.99144]  # Phi(-+2.262 * sqrt(10 / 9)): Student's t with 9 degrees of freedom
    assert expanded_interval(values, 10) == pytest.approx(bounds, abs=1e-4)
    assert expanded_interval(values, 100_000) == pytest.approx([0.025, 0.975], abs=1e-4)
    assert expanded_interval(values, 4) is not None
    assert [expanded_interval(values, count) for count in (1, 2, 3)] == [None] * 3


def test_bootstrap_draws_the_same_speakers_for_all_seeds():
    """Three seeds with equal predictions have the same interval as one of them."""
    labels, predicted, speaker_ids = random_corpus(np.random.default_rng(1), seeds=1)
    one = intervals(counts_of(labels, predicted, speaker_ids))
    three = intervals(counts_of(labels, np.repeat(predicted, 3, axis=0), speaker_ids))
    assert one == {name: pytest.approx(bounds) for name, bounds in three.items()}


@pytest.mark.parametrize(
    ("speakers", "low", "high"), [(4, 0.83, 0.95), (10, 0.90, 0.99), (20, 0.90, 0.99), (40, 0.90, 0.99)]
)
def test_coverage_of_intervals(speakers: int, low: float, high: float):
    """Intervals contain the UA over all possible speakers; with four, they are too narrow."""
    rng = np.random.default_rng(speakers)
    truth = np.clip(rng.normal(0.6, 0.15, 1_000_000), 0, 1).mean()
    found = [intervals(counts_of(*random_corpus(rng, speakers)))["ua"] for _ in range(300)]
    assert low <= np.mean([lower <= truth <= upper for lower, upper in found]) <= high


def test_coverage_of_intervals_of_a_difference():
    rng = np.random.default_rng(7)
    speaker_ids = np.repeat(np.arange(20), 30)
    hits = 0
    for _ in range(300):
        gain = rng.normal(0.05, 0.1, 20)
        labels = rng.integers(CLASSES, size=600)
        wrong = (labels + 1) % CLASSES
        a = np.where(rng.random((2, 600)) < 0.5 + gain[speaker_ids], labels, wrong)
        b = np.where(rng.random((2, 600)) < 0.5, labels, wrong)
        difference = compare(counts_of(labels, a, speaker_ids), counts_of(labels, b, speaker_ids))
        low, high = difference["ci95"]
        hits += low <= 0.05 <= high
    assert 0.90 <= hits / 300 <= 0.99


def difference_after_swap(a: np.ndarray, b: np.ndarray, swap: np.ndarray) -> float:
    """The difference in UA after swapping the predictions of the speakers in `swap` (P,)."""
    swapped = swap[None, :, None, None]
    return mean_scores(np.where(swapped, b, a))["ua"] - mean_scores(np.where(swapped, a, b))["ua"]


def test_swapping_the_predictions_of_a_speaker_flips_the_sign_of_the_contribution():
    rng = np.random.default_rng(0)
    a, b = equally_good_methods(rng, 6)
    contributions = speaker_contributions(a, b)
    assert contributions.sum() == pytest.approx(mean_scores(a)["ua"] - mean_scores(b)["ua"])
    for swap in rng.integers(2, size=(20, 6)).astype(bool):
        expected = contributions @ np.where(swap, -1, 1)
        assert difference_after_swap(a, b, swap) == pytest.approx(expected)


def test_exact_p_value_equals_brute_force():
    a, b = equally_good_methods(np.random.default_rng(1), 5)
    observed = abs(difference_after_swap(a, b, np.zeros(5, bool)))
    swaps = itertools.product([False, True], repeat=5)
    differences = np.array([abs(difference_after_swap(a, b, np.array(swap))) for swap in swaps])
    found = compare(a, b)
    assert found["exact"]
    assert found["p"] == np.mean(differences >= observed - 1e-12)


def test_signed_sums_equal_brute_force():
    values = np.random.default_rng(0).normal(size=7)
    expected = [np.dot(values, signs) for signs in itertools.product([1, -1], repeat=7)]
    np.testing.assert_allclose(np.sort(signed_sums(values)), np.sort(expected))


def test_drawn_p_values_agree_with_scipy_and_are_never_zero():
    contributions = np.random.default_rng(4).normal(0.03, 0.1, size=24)
    p, exact = permutation_test(contributions)
    reference = stats.permutation_test(
        (contributions, np.zeros(24)),
        lambda x, y, axis: (x - y).sum(axis),
        permutation_type="samples",
        vectorized=True,
        rng=0,
    )
    assert not exact
    assert p == pytest.approx(reference.pvalue, abs=0.02)
    assert permutation_test(np.ones(24))[0] == 1 / 10_001


@pytest.mark.parametrize(("speakers", "corpora"), [(10, 400), (20, 150)])
def test_p_values_are_uniform_without_a_difference(speakers: int, corpora: int):
    """Exact with 10 speakers, in steps of 1/512, which the test does not see; drawn with 20."""
    rng = np.random.default_rng(speakers)
    pairs = [equally_good_methods(rng, speakers) for _ in range(corpora)]
    p = np.array([permutation_test(speaker_contributions(a, b))[0] for a, b in pairs])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / corpora)


def test_a_true_difference_is_significant():
    rng = np.random.default_rng(3)
    labels, good, speaker_ids = random_corpus(rng, 12, skill=0.8)
    bad = np.where(rng.random(good.shape) < 0.5, good, (labels + 1) % CLASSES)
    found = compare(counts_of(labels, good, speaker_ids), counts_of(labels, bad, speaker_ids))
    assert found["ci95"][0] > 0
    assert found["p"] == found["smallest_p"] == 2 / 2**12


def test_equal_predictions_have_no_difference():
    counts = counts_of(*random_corpus(np.random.default_rng(0), 8))
    found = compare(counts, counts)
    assert (found["difference"], found["ci95"], found["p"]) == (0, [0, 0], 1)


@pytest.mark.parametrize(("speakers", "p"), [(1, 1.0), (2, 0.5), (4, 0.125), (16, 2**-15), (17, 1 / 10_001)])
def test_the_number_of_speakers_bounds_the_p_value(speakers: int, p: float):
    assert smallest_p(speakers) == p
    assert permutation_test(np.ones(speakers))[0] == p


def test_methods_tested_on_different_utterances_are_not_compared():
    a = counts_of(*random_corpus(np.random.default_rng(0), 4))
    b = counts_of(*random_corpus(np.random.default_rng(1), 4))
    with pytest.raises(ValueError, match="different utterances"):
        compare(a, b)


def test_holm_correction_of_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
