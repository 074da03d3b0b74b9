"""Intervals cover the truth, p-values are uniform where there is nothing to find, and both equal plain loops."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from report import statistics as comparison
from report.statistics import (
    all_sums,
    compare,
    confusions,
    contributions,
    holm,
    interval,
    intervals,
    mean_rates,
    rates,
    resampled,
    sign_flips,
)
from training import metrics

CLASSES = 3


def corpus(
    rng: np.random.Generator,
    speakers: int = 20,
    each: int = 30,
    seeds: int = 2,
    skill: float = 0.6,
    spread=0.15,
):
    """(labels, predicted (S, N), speaker): speakers differ in how well they are understood, by `spread`."""
    speaker = np.repeat(np.arange(speakers), each)
    ability = np.clip(rng.normal(skill, spread, speakers), 0, 1)[speaker]
    labels = rng.integers(CLASSES, size=len(speaker))
    wrong = (labels + rng.integers(1, CLASSES, size=(seeds, len(labels)))) % CLASSES
    return labels, np.where(rng.random((seeds, len(labels))) < ability, labels, wrong), speaker


def counts_of(labels, predicted, speaker) -> np.ndarray:
    return confusions(labels, predicted, speaker, speaker.max() + 1, CLASSES)


def test_rates_are_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, predicted = rng.integers(2, size=12), rng.integers(3, size=12)  # class 2 never occurs
        found = rates(confusions(labels, predicted[None], np.zeros(12, int), 1, 4)[0, 0])
        assert found == pytest.approx(metrics.scores(labels, predicted))
        assert found["macro_f1"] == pytest.approx(
            f1_score(labels, predicted, average="macro", zero_division=0)
        )


def test_scores_are_means_over_the_seeds():
    labels, predicted, speaker = corpus(np.random.default_rng(0))
    found = mean_rates(counts_of(labels, predicted, speaker))
    assert found["ua"] == pytest.approx(np.mean([balanced_accuracy_score(labels, p) for p in predicted]))


def test_one_seed_is_resampled_as_in_its_own_metrics():
    labels, predicted, speaker = corpus(np.random.default_rng(0), seeds=1)
    own = metrics.confidence_intervals(labels, predicted[0], [f"{s:02}" for s in speaker], CLASSES, seed=3)
    values = resampled(counts_of(labels, predicted, speaker), seed=3)
    assert own == {name: pytest.approx(np.percentile(values[name], [2.5, 97.5])) for name in own}


def test_the_percentiles_are_expanded_and_one_speaker_has_none():
    values = np.arange(100_001) / 100_000
    assert interval(values, 10) == pytest.approx([0.00856, 0.99144], abs=1e-4)  # Phi(-2.262 * sqrt(10 / 9))
    assert interval(values, 100_000) == pytest.approx([0.025, 0.975], abs=1e-4)
    assert interval(values, 1) is None


def test_the_same_speakers_are_drawn_for_all_seeds():
    """Seeds that say the same add nothing to what one of them tells."""
    labels, predicted, speaker = corpus(np.random.default_rng(1), seeds=1)
    one, three = (intervals(counts_of(labels, np.repeat(predicted, n, axis=0), speaker)) for n in (1, 3))
    assert one == {name: pytest.approx(bounds) for name, bounds in three.items()}


def coverage(speakers: int, trials: int, spread: float = 0.15) -> float:
    """How often the interval of the UA holds what the UA would be over endlessly many speakers."""
    rng = np.random.default_rng(speakers)
    truth = np.clip(rng.normal(0.6, spread, 1_000_000), 0, 1).mean()
    hits = 0
    for _ in range(trials):
        low, high = intervals(counts_of(*corpus(rng, speakers, spread=spread)))["ua"]
        hits += low <= truth <= high
    return hits / trials


@pytest.mark.parametrize("speakers", [10, 20, 40])
def test_intervals_cover_the_truth(speakers: int):
    assert 0.90 <= coverage(speakers, 300) <= 0.99


def test_very_few_speakers_make_intervals_somewhat_narrow():
    """Known, and said in the report: with four speakers a 95 % interval holds the truth about 9 times in ten."""
    assert 0.83 <= coverage(4, 300) <= 0.95


def test_intervals_of_a_difference_cover_the_truth():
    rng, hits = np.random.default_rng(7), 0
    for _ in range(300):
        speaker, effect = np.repeat(np.arange(20), 30), rng.normal(0.05, 0.1, 20)
        labels = rng.integers(CLASSES, size=600)
        a, b = (
            np.where(rng.random((2, 600)) < 0.5 + gain[speaker], labels, (labels + 1) % CLASSES)
            for gain in (effect, np.zeros(20))
        )
        low, high = compare(counts_of(labels, a, speaker), counts_of(labels, b, speaker))["ci95"]
        hits += low <= 0.05 <= high
    assert 0.90 <= hits / 300 <= 0.99


def swapped(a: np.ndarray, b: np.ndarray, swap: np.ndarray) -> float:
    """The difference in UA after the two have swapped their predictions of some speakers, computed from the counts."""
    chosen = swap[None, :, None, None]
    return mean_rates(np.where(chosen, b, a))["ua"] - mean_rates(np.where(chosen, a, b))["ua"]


def pair(rng: np.random.Generator, speakers: int, seeds: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The counts of two methods that are equally good in the long run, though not with every speaker."""
    labels, a, speaker = corpus(rng, speakers, 12, seeds)
    ability = np.clip(rng.normal(0.6, 0.15, speakers), 0, 1)[speaker]
    b = np.where(rng.random(a.shape) < ability, labels, (labels + 1) % CLASSES)
    return counts_of(labels, a, speaker), counts_of(labels, b, speaker)


def test_a_swap_of_predictions_is_a_flip_of_a_sign():
    rng = np.random.default_rng(0)
    a, b = pair(rng, 6)
    parts = contributions(a, b)
    assert parts.sum() == pytest.approx(mean_rates(a)["ua"] - mean_rates(b)["ua"])
    for swap in rng.integers(2, size=(20, 6)).astype(bool):
        assert swapped(a, b, swap) == pytest.approx(parts @ np.where(swap, -1, 1))


def test_exact_enumeration_is_brute_force_on_the_predictions():
    a, b = pair(np.random.default_rng(1), 5)
    observed = abs(swapped(a, b, np.zeros(5, bool)))
    every = [abs(swapped(a, b, np.array(swap))) for swap in itertools.product([False, True], repeat=5)]
    found = compare(a, b)
    assert found["exact"]
    assert found["p"] == np.mean(np.array(every) >= observed - 1e-12)


def test_all_sums_are_those_of_every_choice_of_signs():
    parts = np.random.default_rng(0).normal(size=7)
    brute = [np.dot(parts, signs) for signs in itertools.product([1, -1], repeat=7)]
    np.testing.assert_allclose(np.sort(all_sums(parts)), np.sort(brute))


def test_draws_agree_with_scipy_and_never_say_zero():
    parts = np.random.default_rng(4).normal(0.03, 0.1, size=24)
    p, exact = sign_flips(parts)
    reference = stats.permutation_test(
        (parts, np.zeros(24)),
        lambda x, y, axis: (x - y).sum(axis),
        permutation_type="samples",
        vectorized=True,
        rng=0,
    )
    assert not exact
    assert p == pytest.approx(reference.pvalue, abs=0.02)
    assert sign_flips(np.ones(24))[0] == 1 / 10_001


@pytest.mark.parametrize(("speakers", "corpora"), [(10, 400), (20, 150)])
def test_p_values_are_uniform_where_there_is_no_difference(speakers: int, corpora: int):
    """Exact and drawn. 2 ** 10 choices leave steps of 1/512, far finer than what the test of uniformity sees."""
    rng = np.random.default_rng(speakers)
    p = np.array([sign_flips(contributions(*pair(rng, speakers)))[0] for _ in range(corpora)])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / corpora)


def test_a_real_difference_is_found():
    rng = np.random.default_rng(3)
    labels, good, speaker = corpus(rng, 12, skill=0.8)
    bad = np.where(rng.random(good.shape) < 0.5, good, (labels + 1) % CLASSES)
    found = compare(counts_of(labels, good, speaker), counts_of(labels, bad, speaker))
    assert found["ci95"][0] > 0
    assert found["p"] == found["smallest_p"] == 2 / 2**12


def test_the_same_predictions_do_not_differ():
    counts = counts_of(*corpus(np.random.default_rng(0), 8))
    found = compare(counts, counts)
    assert (found["difference"], found["ci95"], found["p"]) == (0, [0, 0], 1)


@pytest.mark.parametrize(("speakers", "p"), [(1, 1.0), (2, 0.5), (4, 0.125), (16, 2**-15), (17, 1 / 10_001)])
def test_few_speakers_bound_the_p_value(speakers: int, p: float):
    assert comparison.smallest_p(speakers) == p
    assert sign_flips(np.ones(speakers))[0] == p


def test_methods_that_heard_different_utterances_are_not_compared():
    a = counts_of(*corpus(np.random.default_rng(0), 4))
    b = counts_of(*corpus(np.random.default_rng(1), 4))
    with pytest.raises(ValueError, match="different utterances"):
        compare(a, b)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
