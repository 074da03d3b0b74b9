"""The statistics of a cross-validation: intervals, differences and p-values that respect speakers.

Utterances of one speaker go together, so the speaker is the unit of everything here: the bootstrap draws speakers, and
the permutation test swaps two methods' predictions speaker by speaker. What it all rests on is a table of counts,
(S seeds, P speakers, C true classes, C predicted classes); scores are means over the seeds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from training.metrics import BOOTSTRAPS

EXACT_SPEAKERS = 16  # up to so many, all 2 ** P swaps are counted: 65,536
PERMUTATIONS = 10_000
ROUNDING = 1e-12  # two sums of the same terms in another order count as equal


def confusions(
    labels: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, speakers: int, classes: int
) -> Any:
    """Counts (S, P, C, C) of class ids `labels` (N,) and `predicted` (S, N), of utterances by `speaker` ids (N,)."""
    counts = np.zeros((len(predicted), speakers, classes, classes), dtype=np.int64)
    seeds = np.arange(len(predicted))[:, None]
    np.add.at(counts, (seeds, speaker, labels, predicted), 1)
    return counts


def rates(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """{"ua", "wa", "macro_f1"} of confusions (..., C, C); the classes that `metrics.scores` leaves out are left out."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, said = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return {
        "ua": np.nanmean(_share(correct, true), axis=-1),
        "wa": _share(correct.sum(axis=-1), true.sum(axis=-1)),
        "macro_f1": np.nanmean(_share(2 * correct, true + said), axis=-1),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where there is nothing to share."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def mean_rates(counts: np.ndarray) -> dict[str, float]:
    """The scores of counts (S, P, C, C): every seed's utterances pooled, then the mean over the seeds."""
    return {name: float(values.mean()) for name, values in rates(counts.sum(axis=1)).items()}


def resampled(counts: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """The scores (draws,) of corpora whose speakers are drawn from these, with replacement; one draw for all seeds."""
    seeds, speakers, classes, _ = counts.shape
    draws = np.random.default_rng(seed).integers(speakers, size=(BOOTSTRAPS, speakers))
    times = np.zeros((BOOTSTRAPS, speakers))  # how often a draw has a speaker
    np.add.at(times, (np.arange(BOOTSTRAPS)[:, None], draws), 1)
    by_speaker = counts.swapaxes(0, 1).reshape(speakers, -1)
    confusion = (times @ by_speaker).reshape(BOOTSTRAPS, seeds, classes, classes)
    return {name: values.mean(axis=1) for name, values in rates(confusion).items()}


def intervals(counts: np.ndarray, seed: int = 0) -> dict[str, list[float] | None]:
    """95 % intervals of the seed-averaged scores of counts (S, P, C, C)."""
    return {name: interval(values, counts.shape[1]) for name, values in resampled(counts, seed).items()}


def interval(values: np.ndarray, speakers: int) -> list[float] | None:
    """The expanded percentile interval (Hesterberg, The American Statistician 2015); None of one speaker.

    Plain percentiles are too narrow where speakers are few: the draws vary by (P - 1) / P of the variance that they
    stand for, and the normal's quantile stands where Student's t belongs. Both are mended by percentiles further out.
    """
    if speakers < 2:
        return None
    tail = stats.norm.cdf(stats.t.ppf(0.025, speakers - 1) * np.sqrt(speakers / (speakers - 1)))
    return [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]


def compare(a: np.ndarray, b: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """The difference in UA of two methods (counts as above) on the same utterances, its interval and its p-value."""
    difference = resampled(a, seed)["ua"] - resampled(b, seed)["ua"]  # the same draws of speakers
    p, exact = sign_flips(contributions(a, b), seed)
    return {
        "difference": mean_rates(a)["ua"] - mean_rates(b)["ua"],
        "ci95": interval(difference, a.shape[1]),
        "p": p,
        "exact": exact,
        "speakers": a.shape[1],
        "seeds": a.shape[0],
        "smallest_p": smallest_p(a.shape[1]),
    }


def contributions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What each speaker adds to the difference in UA (P,); their sum is the difference.

    On the same utterances the number of each class is the same for both methods, so the UA is linear in the correct
    answers: to swap the methods' predictions of a speaker, all seeds at once, flips the sign of that speaker's part.
    """
    correct_a, correct_b = (np.diagonal(counts, axis1=2, axis2=3) for counts in (a, b))  # (S, P, C)
    support = a.sum(axis=3)
    if not np.array_equal(support, b.sum(axis=3)):
        raise ValueError("the two methods heard different utterances")
    total = support.sum(axis=1, keepdims=True)
    return np.nanmean(_share((correct_a - correct_b).astype(np.float64), total), axis=2).mean(axis=0)


def sign_flips(parts: np.ndarray, seed: int = 0) -> tuple[float, bool]:
    """The two-sided p-value of the sum of `parts` (P,), each sign a coin's; and whether all choices were counted."""
    observed = abs(parts.sum()) - ROUNDING
    if len(parts) <= EXACT_SPEAKERS:
        return float(np.mean(np.abs(all_sums(parts)) >= observed)), True
    generator, extreme = np.random.default_rng(seed), 0
    for _ in range(10):  # in portions, for corpora of thousands of speakers
        signs = generator.integers(2, size=(PERMUTATIONS // 10, len(parts)), dtype=np.int8) * 2 - 1
        extreme += int(np.sum(np.abs(signs @ parts) >= observed))
    return (1 + extreme) / (1 + PERMUTATIONS), False  # the data as they are count as one more draw


def all_sums(parts: np.ndarray) -> np.ndarray:
    """The sums (2 ** P,) of `parts` under every choice of signs."""
    sums = np.zeros(1)
    for part in parts:
        sums = np.concatenate([sums + part, sums - part])
    return sums


def smallest_p(speakers: int) -> float:
    """The smallest p-value that `sign_flips` can give with so many speakers."""
    return min(1.0, 2 / 2**speakers) if speakers <= EXACT_SPEAKERS else 1 / (1 + PERMUTATIONS)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down procedure, in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()
