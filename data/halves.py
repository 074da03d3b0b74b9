"""The division of the training rows of a search between the weights and the alphas."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from data.fold_schemes import ManifestRow, field_values
from data.folds import first_original_rows, is_known_speaker
from utils import UserError

SPEAKER_ORDERS = 500  # random orders that are tried to divide the speakers of a search


def halves(
    manifest: Sequence[ManifestRow], rows: Iterable[int], portion: float, seed: int, by: str = "utterances"
) -> tuple[np.ndarray, np.ndarray]:
    """Split training rows into those that train the weights and those that train the alphas.

    The first get `portion` of the utterances. The split is seeded, the row numbers are ascending, and no utterance is
    in both; `by` "speakers", no speaker either. Only the first have perturbed copies.

    Raises `UserError` if one side cannot have all classes.
    """
    rows = np.sort(np.asarray(rows))
    utterances = [manifest[row] for row in first_original_rows(manifest, rows).values()]
    split = {"utterances": _split_utterances, "speakers": _split_speakers}[by]
    in_weights = np.isin([manifest[row].utterance for row in rows], split(utterances, portion, seed))
    is_original = np.array([not manifest[row].copy for row in rows])
    return rows[in_weights], rows[~in_weights & is_original]


def _split_utterances(utterances: Sequence[ManifestRow], portion: float, seed: int) -> list[str]:
    """Return the names of the utterances that train the weights, stratified by emotion."""
    names = [each.utterance for each in utterances]
    emotions = field_values(utterances, "emotion")
    classes, counts = np.unique(emotions, return_counts=True)
    if counts.min() < 2:
        raise UserError(
            f"class {classes[counts.argmin()]} has a single training utterance: a search needs at least two"
            " of each class, one for the weights and one for the alphas"
        )
    try:
        return train_test_split(names, train_size=portion, stratify=emotions, random_state=seed)[0]
    except ValueError as error:
        sizes = f"{len(utterances)} training utterances at train_portion {portion}"
        raise UserError(f"cannot split {sizes}: {error}") from None


def _split_speakers(utterances: Sequence[ManifestRow], portion: float, seed: int) -> list[str]:
    """Return the names of the utterances that train the weights: all of a speaker, or none.

    The speakers are put in random orders, and each order can be cut in two anywhere. The cut is taken at which the
    numbers of utterances, in all and by emotion and sex, are nearest to `portion`; the second part trains the weights.
    So do all utterances of unknown speakers, who may be anyone.
    """
    speakers, speaker_of = np.unique(field_values(utterances, "speaker"), return_inverse=True)
    known = np.flatnonzero([is_known_speaker(each) for each in speakers])
    by_class = _count_by_speaker(speaker_of, [each.emotion for each in utterances])
    by_stratum = _count_by_speaker(speaker_of, [(each.emotion, each.sex) for each in utterances])
    counts = np.column_stack([by_stratum, by_stratum.sum(axis=1)])
    wanted = (1 - portion) * counts.sum(axis=0)
    rng = np.random.default_rng(seed)
    best = np.inf
    for_alphas = known[:0]
    for order in (rng.permutation(known) for _ in range(SPEAKER_ORDERS)):
        taken = by_class[order].cumsum(axis=0)  # by the first, the first two, ... (speakers, classes)
        complete = ((taken > 0) & (taken < by_class.sum(axis=0))).all(axis=1)
        distances = np.abs(counts[order].cumsum(axis=0) - wanted).sum(axis=1)
        distances[~complete] = np.inf
        if distances.min(initial=np.inf) < best:
            best = distances.min()
            for_alphas = order[: distances.argmin() + 1]
    if not len(for_alphas):
        raise UserError(
            f"no division of the {len(known)} training speakers between weights and alphas leaves all classes to both: "
            "pass --halves utterances"
        )
    return [utterances[each].utterance for each in np.flatnonzero(~np.isin(speaker_of, for_alphas))]


def _count_by_speaker(speaker_of: np.ndarray, strata: Sequence[Any]) -> np.ndarray:
    """Return the numbers of utterances, (speakers, distinct strata)."""
    distinct, stratum_of = np.unique(strata, axis=0, return_inverse=True)
    counts = np.zeros((speaker_of.max() + 1, len(distinct)), np.int64)
    np.add.at(counts, (speaker_of, stratum_of), 1)
    return counts
