"""Speaker-independent folds, and the halves of a search: functions of the manifest alone.

No speaker is in two parts of a fold, the test parts of all folds hold every utterance once, and the order of the
manifest's rows does not matter.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from utils import UserError

SEED = 0  # of the speakers' order before they are dealt out; fixed, since folds must be the same everywhere


class Labelled(Protocol):
    """What the folds need of a manifest's row."""

    utterance: str
    speaker: str
    session: str
    emotion: str


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers of the three parts, each ascending."""

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


def make_folds(rows: Sequence[Labelled], scheme: str = "auto") -> list[Fold]:
    """Partition a manifest into folds for cross-validation.

    `session` and `speaker` leave one out, in natural order; `groupK` (`group5`) deals the speakers into K groups of
    like size and class balance; `auto` takes sessions where all rows have one, no speaker is in two, and there are
    three or more, otherwise five groups (fewer where there are fewer speakers). About a quarter of each training
    side goes, in whole speakers, to validation.

    Raises `UserError` for an unknown scheme, fewer than three speakers, a row without a known speaker, or data that
    leave a part empty or the training part without one of the classes.
    """
    order = np.array(sorted(range(len(rows)), key=lambda row: rows[row].utterance), dtype=np.int64)
    rows = [rows[row] for row in order]
    _check_speakers(rows)
    emotions, speakers = np.array([row.emotion for row in rows]), np.array([row.speaker for row in rows])

    folds = []
    for number, test in enumerate(_test_parts(rows, emotions, speakers, scheme), 1):
        rest = np.setdiff1d(np.arange(len(rows)), test)
        held = _validation(emotions[rest], speakers[rest], set(emotions), f"fold {number} of scheme {scheme!r}")
        parts = np.delete(rest, held), rest[held], test
        folds.append(Fold(*(np.sort(order[part]) for part in parts)))
    return folds


def choose_fold(folds: Sequence[Fold], fold: int) -> Fold:
    """The fold of this number, from 1. Raises `UserError` where there is none."""
    if not 1 <= fold <= len(folds):
        raise UserError(f"fold {fold} out of range: this dataset has folds 1 to {len(folds)}")
    return folds[fold - 1]


def halves(rows: np.ndarray, labels: np.ndarray, portion: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split training rows into those that train the weights (`portion` of them) and those that train the alphas.

    `labels` are the class ids of the whole manifest. Stratified by class, seeded, each half ascending.
    Raises `UserError` where a class has fewer than two rows, or the halves cannot hold all classes.
    """
    rows = np.sort(rows)
    classes, counts = np.unique(labels[rows], return_counts=True)
    if counts.min() < 2:
        raise UserError(
            f"class {classes[counts.argmin()]} has a single training utterance: a search needs at least two"
            " of each class, one for the weights and one for the alphas"
        )
    try:
        parts = train_test_split(rows, train_size=portion, stratify=labels[rows], random_state=seed)
    except ValueError as error:
        raise UserError(f"cannot split {len(rows)} training utterances at train_portion {portion}: {error}") from None
    return np.sort(parts[0]), np.sort(parts[1])


def natural(text: str) -> tuple:
    """A sort key that puts `S2` before `S10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)], text


def _check_speakers(rows: Sequence[Labelled]) -> None:
    unknown = [row.utterance for row in rows if row.speaker.strip().lower() in ("", "unknown")]
    if unknown:
        raise UserError(
            f"{len(unknown)} utterances have no known speaker (the first: {unknown[0]}):"
            " speaker-independent folds need the speaker of each; leave these utterances out"
        )
    if (count := len({row.speaker for row in rows})) < 3:
        raise UserError(f"{count} speakers: training, validation and test need at least 3, one each")


def _test_parts(rows: Sequence[Labelled], emotions: np.ndarray, speakers: np.ndarray, scheme: str) -> list[np.ndarray]:
    """The test rows of each fold."""
    if scheme == "auto":
        sessions = {row.session for row in rows}
        by_session = len(sessions) >= 3 and "" not in sessions and not _wandering(rows)
        scheme = "session" if by_session else f"group{min(5, len(set(speakers)))}"
    if scheme == "speaker":
        return _one_by_one(speakers)
    if scheme == "session":
        return _one_by_one(_checked_sessions(rows))
    if match := re.fullmatch(r"group(\d{1,6})", scheme):
        return _groups(emotions, speakers, int(match[1]))
    raise UserError(f"unknown fold scheme {scheme!r}: known are auto, session, speaker and groupK, such as group5")


def _one_by_one(names: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(names == name) for name in sorted(set(names), key=natural)]


def _wandering(rows: Sequence[Labelled]) -> list[str]:
    """The speakers that are in more than one session."""
    pairs = sorted({(row.speaker, row.session) for row in rows})
    return [speaker for (speaker, _), (again, _) in pairwise(pairs) if speaker == again]


def _checked_sessions(rows: Sequence[Labelled]) -> np.ndarray:
    for row in rows:
        if not row.session:
            raise UserError(f"fold scheme 'session': utterance {row.utterance} has no session; try speaker or group5")
    if wandering := _wandering(rows):
        raise UserError(
            f"fold scheme 'session': speaker {wandering[0]} is in more than one session, so would be in training"
            " and test at once; try speaker or group5"
        )
    sessions = np.array([row.session for row in rows])
    if len(set(sessions)) < 2:
        raise UserError("fold scheme 'session': there is only one session; try speaker or group5")
    return sessions


def _groups(emotions: np.ndarray, speakers: np.ndarray, count: int) -> list[np.ndarray]:
    most = len(set(speakers))
    if not 2 <= count <= most:
        raise UserError(f"fold scheme 'group{count}': {most} speakers make 2 to {most} groups")
    parts = _deal(emotions, speakers, count)
    if len(parts) < count:
        raise UserError(f"fold scheme 'group{count}': too few utterances to fill so many groups; try speaker")
    return parts


def _deal(emotions: np.ndarray, speakers: np.ndarray, count: int) -> list[np.ndarray]:
    """Up to `count` groups of whole speakers, alike in size and class balance; none where the data are too few."""
    if count > np.unique(emotions, return_counts=True)[1].max():  # scikit-learn refuses
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class rarer than the groups: the callers look at that
        parts = [part for _, part in splitter.split(emotions, emotions, speakers)]
    return [part for part in parts if len(part)]


def _validation(emotions: np.ndarray, speakers: np.ndarray, classes: set[str], where: str) -> np.ndarray:
    """The positions, on a training side, of the rows whose speakers are held out for validation.

    The first group of speakers that has all classes and leaves all classes to train on; where there is none, the
    group with the most classes of those that leave all.
    """
    best, most = None, 0
    for held in _candidates(emotions, speakers):
        if set(np.delete(emotions, held)) >= classes:
            have = len(set(emotions[held]))
            if have > most:
                best, most = held, have
            if have == len(classes):
                break
    if best is None:
        missing = ", ".join(sorted(classes - set(emotions)))
        why = f"only test speakers have {missing}" if missing else "none of its speakers can be spared for validation"
        raise UserError(
            f"{where}: training cannot have every class, since {why};"
            " take another scheme (speaker, group3), or leave the rare classes out"
        )
    return best


def _candidates(emotions: np.ndarray, speakers: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of about a quarter of the rows, then larger ones, then single speakers."""
    names = sorted(set(speakers), key=natural)
    if len(names) < 2:
        return
    for count in range(min(4, len(names)), 1, -1):
        yield from _deal(emotions, speakers, count)
    yield from _one_by_one(speakers)
