"""The statistics of a cross-validation: scores, intervals and p-values with the speaker as the unit.

Utterances of one speaker are not independent. Therefore the bootstrap draws speakers, and the
permutation test swaps the predictions of two methods speaker by speaker. Both work on confusion
counts; scores are means over the seeds.

S seeds, N utterances, P speakers, C classes. Counts have shape (S, P, C true, C predicted).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from training.metrics import BOOTSTRAPS, MIN_SPEAKERS

EXACT_SPEAKERS = 16  # with at most this many speakers, all 2 ** P swaps (65,536) are counted
PERMUTATIONS = 10_000
TOLERANCE = 1e-12  # sums of the same terms in a different order count as equal


def count_confusions(
    labels: np.ndarray, predicted: np.ndarray, speaker_ids: np.ndarray, speakers: int, classes: int
) -> Any:
    """Confusion counts (S, P, C, C) of class ids `labels` (N,) and `predicted` (S, N)."""
    counts = np.zeros((len(predicted), speakers, classes, classes), dtype=np.int64)
    seeds = np.arange(len(predicted))[:, None]
    np.add.at(counts, (seeds, speaker_ids, labels, predicted), 1)
    return counts


def scores_of(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """{"ua", "wa", "macro_f1"} of confusion counts (..., C, C), as in `training.metrics.scores`.

    UA is the mean over the classes that occur; macro-F1 over those that occur or are predicted.
    """
    correct = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    return {
        "ua": np.nanmean(_ratio(correct, true), axis=-1),
        "wa": _ratio(correct.sum(axis=-1), true.sum(axis=-1)),
        "macro_f1": np.nanmean(_ratio(2 * correct, true + predicted), axis=-1),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def mean_scores(counts: np.ndarray) -> dict[str, float]:
    """The scores of counts (S, P, C, C): over all utterances of a seed, averaged over the seeds."""
    return {name: float(values.mean()) for name, values in scores_of(counts.sum(axis=1)).items()}


def bootstrap_scores(counts: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """The scores (draws,) with speakers drawn with replacement; all seeds share the draws."""
    seeds, speakers, classes, _ = counts.shape
    draws = np.random.default_rng(seed).integers(speakers, size=(BOOTSTRAPS, speakers))
    times = np.zeros((BOOTSTRAPS, speakers))  # how often each draw contains each speaker
    np.add.at(times, (np.arange(BOOTSTRAPS)[:, None], draws), 1)
    by_speaker = counts.swapaxes(0, 1).reshape(speakers, -1)
    confusion = (times @ by_speaker).reshape(BOOTSTRAPS, seeds, classes, classes)
    return {name: values.mean(axis=1) for name, values in scores_of(confusion).items()}


def intervals(counts: np.ndarray, seed: int = 0) -> dict[str, list[float] | None]:
    """95 % intervals of the scores of counts (S, P, C, C), averaged over the seeds."""
    draws = bootstrap_scores(counts, seed)
    return {name: expanded_interval(values, counts.shape[1]) for name, values in draws.items()}


def expanded_interval(values: np.ndarray, speakers: int) -> list[float] | None:
    """The 95 % expanded percentile interval (Hesterberg 2015); None for fewer than `MIN_SPEAKERS`.

    With few speakers, plain percentiles give too narrow an interval: the variance of the draws is
    (P - 1) / P of the variance that they estimate, and normal quantiles replace those of Student's
    t. Percentiles further out correct both.
    """
    if speakers < MIN_SPEAKERS:
        return None
    tail = stats.norm.cdf(stats.t.ppf(0.025, speakers - 1) * np.sqrt(speakers / (speakers - 1)))
    return [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]


def compare(a: np.ndarray, b: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Compare the UA of two methods: the difference, its 95 % interval and its p-value.

    `a` and `b` are their counts (S, P, C, C). Raises `ValueError` if their utterances differ.
    """
    p, exact = permutation_test(speaker_contributions(a, b), seed)
    seeds, speakers, *_ = a.shape
    return {
        "difference": mean_scores(a)["ua"] - mean_scores(b)["ua"],
        "ci95": difference_interval(a, b, seed),
        "p": p,
        "exact": exact,
        "speakers": speakers,
        "seeds": seeds,
        "smallest_p": smallest_p(speakers),
    }


def difference_interval(a: np.ndarray, b: np.ndarray, seed: int = 0) -> list[float] | None:
    """The 95 % interval of the difference in UA of counts `a` and `b`, each averaged over its seeds."""
    difference = bootstrap_scores(a, seed)["ua"] - bootstrap_scores(b, seed)["ua"]  # with the same draws
    return expanded_interval(difference, a.shape[1])


def speaker_contributions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The contribution of each speaker (P,) to the difference in UA; their sum is the difference.

    Both methods have the same number of utterances in each class, so the UA is linear in the
    correct predictions. Swapping the predictions of a speaker (in all seeds) therefore flips the
    sign of that speaker's contribution.
    """
    correct_a = np.diagonal(a, axis1=2, axis2=3)  # (S, P, C)
    correct_b = np.diagonal(b, axis1=2, axis2=3)
    support = a.sum(axis=3)
    if not np.array_equal(support, b.sum(axis=3)):
        raise ValueError("the two methods were tested on different utterances")
    total = support.sum(axis=1, keepdims=True)
    return np.nanmean(_ratio((correct_a - correct_b).astype(np.float64), total), axis=2).mean(axis=0)


def permutation_test(contributions: np.ndarray, seed: int = 0) -> tuple[float, bool]:
    """The two-sided p-value of the sum of `contributions` (P,), and whether it is exact."""
    observed = abs(contributions.sum()) - TOLERANCE
    if len(contributions) <= EXACT_SPEAKERS:
        return float(np.mean(np.abs(signed_sums(contributions)) >= observed)), True
    generator = np.random.default_rng(seed)
    extreme = 0
    for _ in range(10):  # ten batches, to bound the memory that thousands of speakers take
        signs = generator.integers(2, size=(PERMUTATIONS // 10, len(contributions)), dtype=np.int8) * 2 - 1
        extreme += int(np.sum(np.abs(signs @ contributions) >= observed))
    return (1 + extreme) / (1 + PERMUTATIONS), False  # the observed data count as one more permutation


def signed_sums(values: np.ndarray) -> np.ndarray:
    """The sums (2 ** P,) of `values` (P,) under every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def smallest_p(speakers: int) -> float:
    """The smallest p-value that `permutation_test` can give."""
    return min(1.0, 2 / 2**speakers) if speakers <= EXACT_SPEAKERS else 1 / (1 + PERMUTATIONS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down procedure; the order is kept."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()
