"""Folds, and the halves of a search: functions of the manifest alone.

They are made of utterances, by the schemes of `data.protocols`, and then spread to rows: however many windows and
perturbed copies an utterance has, they go where it goes. The order of the manifest's rows does not matter.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import train_test_split

from data.protocols import Labelled, Sides, column, deal, natural, one_by_one, sides_of
from utils import UserError

__all__ = ["Fold", "Labelled", "choose_fold", "first_rows", "halves", "is_known", "make_folds", "natural"]


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers of the three parts, each ascending; a row may be in none of them.

    `train` holds all rows of its utterances, `validation` and `test` no perturbed copies.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self, protocol: str) -> tuple[np.ndarray, np.ndarray]:
        """(rows to train on, rows that pick the epoch): `held_out` picks on validation speakers, `paper` on the test's.

        Under `paper`, as published, nothing is held out for validation: those rows are trained on.
        """
        if protocol == "paper":
            return np.sort(np.concatenate([self.train, self.validation])), self.test
        return self.train, self.validation


def make_folds(rows: Sequence[Labelled], scheme: str = "auto", unknown_speakers: bool = False) -> list[Fold]:
    """Partition a manifest into folds for cross-validation.

    `session` and `speaker` leave one out, in natural order; `groupK` (`group5`) deals the speakers into K groups of
    like size and class balance; `auto` takes sessions where all rows have one, no speaker is in two, and there are
    three or more, otherwise five groups (fewer where there are fewer speakers); `official` is the publisher's `split`
    and `emodarts` that of the published code. About a quarter of each training side goes, in whole speakers, to
    validation, unless `official` has a split for it.

    Utterances whose speaker is not known are in no part of any fold; `official` can keep them.

    Raises `UserError` for an unknown scheme or one that does not fit, fewer than three known speakers, an utterance
    of copies alone, or data that leave a part empty or the training part without one of the fold's classes.
    """
    if unknown_speakers and scheme != "official":
        raise UserError(f"fold scheme {scheme!r}: only official can keep utterances of unknown speakers")
    utterances = [rows[row] for _, row in sorted(first_rows(rows, range(len(rows))).items())]
    if not unknown_speakers:
        utterances = _of_known_speakers(utterances)
    position = {each.utterance: number for number, each in enumerate(utterances)}
    owner = np.array([position.get(row.utterance, -1) for row in rows], dtype=np.int64)
    original = np.array([not row.copy for row in rows], dtype=bool)

    folds = []
    for number, sides in enumerate(sides_of(utterances, scheme), 1):
        train, validation = _hold_out(utterances, sides, f"fold {number} of scheme {scheme!r}")
        in_train, *held = (np.isin(owner, part) for part in (train, validation, sides.test))
        folds.append(Fold(np.flatnonzero(in_train), *(np.flatnonzero(original & part) for part in held)))
    return folds


def choose_fold(folds: Sequence[Fold], fold: int) -> Fold:
    """The fold of this number, from 1. Raises `UserError` where there is none."""
    if not 1 <= fold <= len(folds):
        raise UserError(f"fold {fold} out of range: this dataset has folds 1 to {len(folds)}")
    return folds[fold - 1]


def halves(
    manifest: Sequence[Labelled], rows: Iterable[int], portion: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split training rows into those that train the weights (`portion` of the utterances) and those for the alphas.

    Stratified by emotion, seeded, each ascending, no utterance in both. The first has all rows of its utterances, the
    second no perturbed copies.
    Raises `UserError` where a class has fewer than two utterances, or the halves cannot hold all classes.
    """
    rows = np.sort(np.asarray(rows))
    first = first_rows(manifest, rows)
    utterances, labels = list(first), column([manifest[row] for row in first.values()], "emotion")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise UserError(
            f"class {classes[counts.argmin()]} has a single training utterance: a search needs at least two"
            " of each class, one for the weights and one for the alphas"
        )
    try:
        weights, _ = train_test_split(utterances, train_size=portion, stratify=labels, random_state=seed)
    except ValueError as error:
        where = f"{len(utterances)} training utterances at train_portion {portion}"
        raise UserError(f"cannot split {where}: {error}") from None
    for_weights = np.isin([manifest[row].utterance for row in rows], weights)
    original = np.array([not manifest[row].copy for row in rows])
    return rows[for_weights], rows[~for_weights & original]


def first_rows(manifest: Sequence[Labelled], rows: Iterable[int]) -> dict[str, int]:
    """The first original row of each utterance in these rows. Raises `UserError` for one that has only copies."""
    first: dict[str, int] = {}
    for row in rows:
        if not manifest[row].copy:
            first.setdefault(manifest[row].utterance, row)
    for row in rows:
        if manifest[row].utterance not in first:
            raise UserError(
                f"utterance {manifest[row].utterance} has perturbed copies and no original; make the features anew"
            )
    return first


def is_known(speaker: str) -> bool:
    """Whether a manifest says who speaks."""
    return speaker.strip().lower() not in ("", "unknown")


def _of_known_speakers(utterances: Sequence[Labelled]) -> list[Labelled]:
    known = [each for each in utterances if is_known(each.speaker)]
    if (count := len({each.speaker for each in known})) < 3:
        left_out = len(utterances) - len(known)
        because = f" ({left_out} utterances have no known speaker, so are left out)" if left_out else ""
        raise UserError(f"{count} speakers: training, validation and test need at least 3, one each{because}")
    return known


def _hold_out(utterances: Sequence[Labelled], sides: Sides, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The utterances to train on, and those for validation: the publisher's, or some speakers of the training side."""
    emotions, rest = column(utterances, "emotion"), sides.training
    classes = set(emotions[np.concatenate([rest, sides.test, sides.validation])])
    missing = ", ".join(sorted(classes - set(emotions[rest])))
    validation = sides.validation if len(sides.validation) else _validation(utterances, rest, classes)
    if missing or not len(validation):
        held = "test and validation" if len(sides.validation) else "test"
        why = (
            f"only {held} speakers have {missing}"
            if missing
            else "none of its speakers can be spared for validation"
        )
        raise UserError(
            f"{where}: training cannot have every class, since {why};"
            " take another scheme (speaker, group3), or leave the rare classes out"
        )
    return np.setdiff1d(rest, validation), validation


def _validation(utterances: Sequence[Labelled], rest: np.ndarray, classes: Collection[str]) -> np.ndarray:
    """The utterances, of those on the training side, that are held out for validation.

    The first group of speakers that has all classes and leaves all classes to train on; where there is none, the
    group with the most classes of those that leave all; none where there is no such group. Utterances of unknown
    speakers are left to train on, since whoever speaks there may speak in others.
    """
    emotions, speakers = column(utterances, "emotion"), column(utterances, "speaker")
    known = np.array([row for row in rest if is_known(speakers[row])], dtype=np.int64)
    best, most = known[:0], 0
    for group in _candidates(emotions[known], speakers[known]):
        held = known[group]
        have = len(set(emotions[held]))
        if have > most and set(emotions[np.setdiff1d(rest, held)]) >= classes:
            best, most = held, have
            if have == len(classes):
                break
    return best


def _candidates(emotions: np.ndarray, speakers: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of about a quarter of the utterances, then larger ones, then single speakers."""
    for count in range(min(4, len(set(speakers))), 1, -1):
        yield from deal(emotions, speakers, count)
    yield from one_by_one(speakers)
