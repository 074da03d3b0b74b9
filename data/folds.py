"""Speaker-independent folds.

Folds are made of utterances, by the schemes of `data.fold_schemes`, and then expanded to the rows of a
manifest: all windows and perturbed copies of an utterance stay together. The result depends on the
manifest only, and not on the order of its rows.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.fold_schemes import (
    ManifestRow,
    UtteranceFold,
    field_values,
    group_speakers,
    positions_by_name,
    utterance_folds,
)
from data.names import is_unknown
from utils import UserError

FEW_SPEAKERS_ADVICE = (
    "training, validation and test need at least 3, one each; to train on these and test on another corpus, or to "
    "split them yourself, list the recordings in a CSV (--corpus manifest) with a column split, and pass "
    "--folds_by official"
)
"""What can be done with one or two speakers."""
OTHER_SCHEMES = ("auto", "group5", "group3", "group2")  # tried where a scheme does not fit the data
NEAR = 0.05  # distance from a quarter, as a share of the training side, at which no other validation is looked for

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions of the utterances of training, validation and test."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers of the three parts, ascending; a row may be in none of them.

    `train` holds all rows of its utterances, `validation` and `test` no perturbed copies; those of the
    validation utterances are `validation_copies`.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    validation_copies: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def parts(self, protocol: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on and the rows that select the epoch.

        `held_out` selects on the validation rows. `refit` trains on them as well, with their copies, and selects
        nothing. `paper` trains on them and selects on the test rows, as published.
        """
        if protocol == "held_out":
            return self.train, self.validation
        if protocol == "refit":
            return np.sort(np.concatenate([self.train, self.validation, self.validation_copies])), self.test[
                :0
            ]
        return np.sort(np.concatenate([self.train, self.validation])), self.test


def make_folds(
    rows: Sequence[ManifestRow], scheme: str = "auto", unknown_speakers: bool = False
) -> list[Fold]:
    """Split the rows of a manifest into the folds of a cross-validation.

    `data.fold_schemes` describes the schemes. The speakers nearest to a quarter of each training side are
    held out for validation, unless `official` has a split for it. Utterances of unknown speakers are
    in no fold, unless `official` is used with `unknown_speakers`.

    Raises `UserError` if the scheme is unknown or does not fit the data, fewer than three speakers are
    known (`official` needs one), an utterance has only perturbed copies, a part would be empty, or the training
    part would lack one of the classes.
    """
    if unknown_speakers and scheme != "official":
        raise UserError(f"fold scheme {scheme!r}: only official can keep utterances of unknown speakers")
    first_rows = first_original_rows(rows, range(len(rows)))
    utterances = [rows[first_rows[name]] for name in sorted(first_rows)]
    if not unknown_speakers:
        utterances = _with_known_speakers(utterances, enough=1 if scheme == "official" else 3)
    positions = {each.utterance: position for position, each in enumerate(utterances)}
    position_of_row = np.array([positions.get(row.utterance, -1) for row in rows], dtype=np.int64)
    is_original = np.array([not row.copy for row in rows], dtype=bool)

    folds = []
    for train, validation, test in _split_or_advise(utterances, scheme):
        in_train, in_validation, in_test = (
            np.isin(position_of_row, part) for part in (train, validation, test)
        )
        parts = in_train, in_validation & is_original, in_test & is_original, in_validation & ~is_original
        folds.append(Fold(*map(np.flatnonzero, parts)))
    return folds


def choose_fold(folds: Sequence[Fold], number: int) -> Fold:
    """Return a fold by its number, counted from 1. Raises `UserError` if there is no such fold."""
    if not 1 <= number <= len(folds):
        raise UserError(f"fold {number} out of range: this dataset has folds 1 to {len(folds)}")
    return folds[number - 1]


def first_original_rows(manifest: Sequence[ManifestRow], rows: Iterable[int]) -> dict[str, int]:
    """Return the first row of each utterance that is not a perturbed copy.

    Raises `UserError` if an utterance has only copies.
    """
    first_rows: dict[str, int] = {}
    for row in rows:
        if not manifest[row].copy:
            first_rows.setdefault(manifest[row].utterance, row)
    for row in rows:
        if (name := manifest[row].utterance) not in first_rows:
            raise UserError(f"utterance {name} has perturbed copies and no original; make the features again")
    return first_rows


def is_known_speaker(speaker: str) -> bool:
    """Return whether the name of a speaker in a manifest identifies a person."""
    return not is_unknown(speaker)


def _with_known_speakers(utterances: Sequence[ManifestRow], enough: int) -> list[ManifestRow]:
    """Return the utterances of known speakers. Raises `UserError` if these are not `enough` speakers."""
    known = [each for each in utterances if is_known_speaker(each.speaker)]
    count = len({each.speaker for each in known})
    if count < enough:
        unknown = len(utterances) - len(known)
        reason = f" ({unknown} utterances have no known speaker and are left out)" if unknown else ""
        raise UserError(f"{count} speakers: {FEW_SPEAKERS_ADVICE}{reason}")
    return known


def _split_or_advise(utterances: Sequence[ManifestRow], scheme: str) -> list[Parts]:
    """Return the folds of a scheme. Raises `UserError` if there are none, which names another scheme that has some."""
    try:
        return _split(utterances, scheme)
    except UserError as error:
        other = next((each for each in OTHER_SCHEMES if _has_folds(utterances, each)), None)
        advice = f"--folds_by {other} has folds" if other else "no other --folds_by has folds either"
        raise UserError(f"{error}; {advice}") from None


def _has_folds(utterances: Sequence[ManifestRow], scheme: str) -> bool:
    try:
        _split(_with_known_speakers(utterances, enough=3), scheme)
    except UserError:
        return False
    return True


def _split(utterances: Sequence[ManifestRow], scheme: str) -> list[Parts]:
    """Return the utterances of each fold of a scheme: those to train on, for validation, and for the test."""
    folds = []
    for number, fold in enumerate(utterance_folds(utterances, scheme), 1):
        train, validation = _hold_out_validation(utterances, fold, f"fold {number} of scheme {scheme!r}")
        folds.append((train, validation, fold.test))
    return folds


def _hold_out_validation(
    utterances: Sequence[ManifestRow], fold: UtteranceFold, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the utterances of a fold to train on and those for validation."""
    emotions = field_values(utterances, "emotion")
    classes = set(emotions[np.concatenate([fold.training, fold.test, fold.validation])])
    if len(classes) < 2:
        raise UserError(f"{where}: {', '.join(classes)} is its only class; a classifier needs two")
    missing = ", ".join(sorted(classes - set(emotions[fold.training])))
    has_validation = len(fold.validation) > 0
    validation = fold.validation if has_validation else _choose_validation(utterances, fold.training, classes)
    if missing or not len(validation):
        problem = "no known training speaker can be held out for validation without losing a class"
        if missing:
            others = "test and validation" if has_validation else "test"
            problem = f"only {others} speakers have {missing}, so training would lack a class"
        raise UserError(f"{where}: {problem}, unless --emotions leaves out the rare classes")
    return np.setdiff1d(fold.training, validation), validation


def _choose_validation(
    utterances: Sequence[ManifestRow], training: np.ndarray, classes: Collection[str]
) -> np.ndarray:
    """Return the utterances of the training side to hold out for validation; empty if none can be held out.

    Of the groups of speakers that leave all classes for training, takes those with the most classes, and of
    these the nearest to a quarter, the first if several are equal. Utterances of unknown speakers stay in
    training, since their speakers may be anyone.
    """
    emotions = field_values(utterances, "emotion")
    sexes = field_values(utterances, "sex")
    known = np.array(
        [each for each in training if is_known_speaker(utterances[each].speaker)], dtype=np.int64
    )
    available = Counter(emotions[training])
    wanted = Counter(sexes[training])
    best = known[:0]
    best_rank = (0, 0.0)
    for groups in _validation_groups([utterances[each] for each in known]):
        for group in groups:
            held_out = known[group]
            taken = Counter(emotions[held_out])
            rank = (len(taken), -_distance_from_quarter(Counter(sexes[held_out]), wanted))
            if rank > best_rank and all(available[emotion] > taken[emotion] for emotion in classes):
                best = held_out
                best_rank = rank
        if best_rank >= (len(classes), -NEAR):  # for speed
            break
    return best


def _validation_groups(utterances: Sequence[ManifestRow]) -> Iterator[list[np.ndarray]]:
    """Yield four groups of speakers, then fewer and larger ones, then single speakers."""
    speakers = field_values(utterances, "speaker")
    for count in range(min(4, len(set(speakers))), 1, -1):
        yield group_speakers(utterances, count)
    yield positions_by_name(speakers)


def _distance_from_quarter(group: Counter, training: Counter) -> float:
    """Return how far a group is from a quarter of the training side: in its size, and in the numbers by sex.

    The arguments count the utterances by sex. The result is a share of the training side.
    """
    by_sex = sum(abs(4 * group[sex] - training[sex]) for sex in training)
    return (abs(4 * group.total() - training.total()) + by_sex) / (8 * training.total())
