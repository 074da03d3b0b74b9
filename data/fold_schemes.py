"""The fold schemes: which utterances each fold tests, and which it may train on.

A scheme is a function from the utterances of a manifest, sorted by name, to folds. To add a scheme, write
the function and add it to `SCHEMES`.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from utils import UserError

SHUFFLE_SEED = 0  # of the speakers before they are grouped; fixed, since folds must be the same everywhere
FEW_SPEAKERS = 6  # up to this many, `auto` leaves one speaker out; five groups would differ in size
SPLIT = re.compile(
    r"(?:(?P<training>train(?:ing)?)|(?P<validation>dev(?:el(?:opment)?)?|val(?:id(?:ation)?)?)"
    r"|(?P<eval>eval(?:uation)?))(?:set)?(?![a-z])|(?P<test>test)"
)
"""The beginning of a split's name in lower case; more may follow, as in `dev-other` and `test1`."""


class ManifestRow(Protocol):
    """The fields of a manifest row that folds need. Windows and perturbed copies have rows of their own."""

    utterance: str
    speaker: str
    session: str
    emotion: str
    split: str
    text: str
    copy: str  # how the row was perturbed, such as speed:0.9; empty for an original
    sex: str  # of the speaker; empty if not known
    audio: str  # digest of the recording's samples; empty if not known


@dataclass(frozen=True, eq=False)
class UtteranceFold:
    """A fold as positions of utterances; the others are in no part of it.

    If `validation` is empty, it has yet to be taken from `training`.
    """

    training: np.ndarray
    test: np.ndarray
    validation: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def utterance_folds(utterances: Sequence[ManifestRow], scheme: str) -> list[UtteranceFold]:
    """Return the folds of a scheme. Raises `UserError` if it is unknown or does not fit the data."""
    if match := re.fullmatch(r"group(\d{1,6})", scheme):
        return by_group(utterances, int(match[1]))
    if scheme not in SCHEMES:
        raise UserError(f"unknown fold scheme {scheme!r}: known are {SCHEME_NAMES}")
    return SCHEMES[scheme](utterances)


def auto(utterances: Sequence[ManifestRow]) -> list[UtteranceFold]:
    """Leave one session out if the sessions allow it; otherwise one speaker of up to six, or one of five groups.

    The sessions do if every utterance has one, no speaker is in two, and there are three or more.
    """
    sessions = {each.session for each in utterances}
    if len(sessions) >= 3 and "" not in sessions and not _speakers_in_two_sessions(utterances):
        return by_session(utterances)
    few = len({each.speaker for each in utterances}) <= FEW_SPEAKERS
    return by_speaker(utterances) if few else by_group(utterances, 5)


def by_session(utterances: Sequence[ManifestRow]) -> list[UtteranceFold]:
    """Leave one session out.

    Raises `UserError` if an utterance has no session, a speaker is in two, or there is only one session.
    """
    where = "fold scheme 'session'"
    for each in utterances:
        if not each.session:
            raise UserError(f"{where}: utterance {each.utterance} has no session")
    if speakers := _speakers_in_two_sessions(utterances):
        raise UserError(
            f"{where}: speaker {speakers[0]} is in more than one session, so would be in both training and test"
        )
    tests = positions_by_name(field_values(utterances, "session"))
    if len(tests) < 2:
        raise UserError(f"{where}: there is only one session")
    return _leave_out(utterances, tests)


def by_speaker(utterances: Sequence[ManifestRow]) -> list[UtteranceFold]:
    """Leave one speaker out."""
    return _leave_out(utterances, positions_by_name(field_values(utterances, "speaker")))


def by_group(utterances: Sequence[ManifestRow], count: int) -> list[UtteranceFold]:
    """Leave out one of `count` groups of speakers, similar in size and in the balance of classes and sexes.

    Raises `UserError` if `count` is less than 2 or too many for the data.
    """
    most = len({each.speaker for each in utterances})
    if not 2 <= count <= most:
        raise UserError(f"fold scheme 'group{count}': {most} speakers make 2 to {most} groups")
    tests = group_speakers(utterances, count)
    if len(tests) < count:
        raise UserError(f"fold scheme 'group{count}': too few utterances for so many groups")
    return _leave_out(utterances, tests)


def official(utterances: Sequence[ManifestRow]) -> list[UtteranceFold]:
    """The publisher's split: one fold per test set, in natural order; other test sets are not in the fold.

    An `eval` or `evaluation` set is for validation if there is another test set, and otherwise the test set.
    Raises `UserError` if an utterance has no split or an unknown one, or there is no training or test split.
    """
    kinds = [_kind_of_split(each) for each in utterances]
    meaning = {"eval": "validation" if "test" in kinds else "test"}
    parts = np.array([meaning.get(kind, kind) for kind in kinds], dtype=np.str_)
    if missing := [part for part in ("training", "test") if not any(parts == part)]:
        raise UserError(f"fold scheme 'official': no utterance is in a {missing[0]} split")
    splits = np.array([each.split.strip().lower() for each in utterances], dtype=np.str_)
    training = np.flatnonzero(parts == "training")
    validation = np.flatnonzero(parts == "validation")
    return [
        UtteranceFold(training, np.flatnonzero((parts == "test") & (splits == test)), validation)
        for test in sorted(set(splits[parts == "test"]), key=natural_sort_key)
    ]


def emodarts(utterances: Sequence[ManifestRow]) -> list[UtteranceFold]:
    """The test speakers of the published emoDARTS code. The names of the utterances identify the corpus.

    IEMOCAP: fold k tests the man of session k and the woman of the next; their partners are in training.
    MSP-IMPROV: sessions 1, 2, 3 and 5; 4 and 6 are never tested. MSP-Podcast: see `_podcast_groups`.
    Raises `UserError` for other corpora, and if the utterances of a test are missing.
    """
    names = {each.utterance for each in utterances}
    if all(name.startswith("MSP-PODCAST_") for name in names):
        return _podcast_groups(utterances)
    if all(name.startswith("Ses0") for name in names):
        kind = "speaker"
        tests = [(f"0{k}M", f"0{k % 5 + 1}F") for k in range(1, 6)]
    elif all(name.startswith("MSP-IMPROV-") for name in names):
        kind = "session"
        tests = [("1",), ("2",), ("3",), ("5",)]
    else:
        raise UserError("fold scheme 'emodarts' is only for IEMOCAP, MSP-IMPROV and MSP-Podcast")
    values = field_values(utterances, kind)
    if missing := sorted(set().union(*tests) - set(values)):
        raise UserError(f"fold scheme 'emodarts' tests {kind} {missing[0]}, which has no utterance")
    return _leave_out(utterances, [np.flatnonzero(np.isin(values, test)) for test in tests])


def _podcast_groups(utterances: Sequence[ManifestRow]) -> list[UtteranceFold]:
    """Five groups of the speakers of Train, Test1 and Test2, sorted as text; fold 1 tests the last group.

    A group is closed when it has more than a fifth of the utterances, so there is never a sixth group.
    """
    pool = np.flatnonzero([each.split.strip().lower() in ("train", "test1", "test2") for each in utterances])
    speakers = field_values(utterances, "speaker")[pool]
    tests: list[list[int]] = [[]]
    for speaker in sorted(set(speakers)):
        if len(tests[-1]) > len(pool) // 5:
            tests.append([])
        tests[-1] += pool[speakers == speaker].tolist()
    if len(tests) < 5:
        pool_size = f"the {len(pool)} utterances of known speakers in Train, Test1 and Test2"
        raise UserError(f"fold scheme 'emodarts': {pool_size} fill {len(tests)} of 5 groups")
    return [UtteranceFold(np.setdiff1d(pool, test), np.sort(test)) for test in reversed(tests)]


def _kind_of_split(utterance: ManifestRow) -> str:
    """Return `training`, `validation`, `eval` or `test`."""
    name = utterance.split.strip().lower()
    where = f"fold scheme 'official': utterance {utterance.utterance}"
    if not name:
        raise UserError(f"{where} has no split")
    found = SPLIT.match(name)
    if not found:
        known = "train, dev, validation, eval and test, and each with a suffix, such as dev-other"
        raise UserError(f"{where} is in the unknown split {utterance.split!r}: known are {known}")
    return found.lastgroup


def _speakers_in_two_sessions(utterances: Sequence[ManifestRow]) -> list[str]:
    pairs = sorted({(each.speaker, each.session) for each in utterances})
    return [speaker for (speaker, _), (next_speaker, _) in pairwise(pairs) if speaker == next_speaker]


def _leave_out(utterances: Sequence[ManifestRow], tests: Sequence[np.ndarray]) -> list[UtteranceFold]:
    """Return one fold per test, which trains on all other utterances."""
    return [UtteranceFold(np.setdiff1d(np.arange(len(utterances)), test), test) for test in tests]


def field_values(utterances: Sequence[ManifestRow], name: str) -> np.ndarray:
    """Return the field `name` of each utterance, as an array of strings."""
    return np.array([getattr(each, name) for each in utterances], dtype=np.str_)


def natural_sort_key(text: str) -> tuple:
    """Return a sort key that puts `S2` before `S10`."""
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
    return parts, text


def positions_by_name(names: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each distinct name, in natural order of the names."""
    distinct, ids, counts = np.unique(names, return_inverse=True, return_counts=True)
    positions = np.split(np.argsort(ids, kind="stable"), np.cumsum(counts)[:-1])
    by_name = dict(zip(distinct.tolist(), positions, strict=False))  # np.split gives one part of nothing
    return [by_name[name] for name in sorted(by_name, key=natural_sort_key)]


def group_speakers(utterances: Sequence[ManifestRow], count: int) -> list[np.ndarray]:
    """Return the positions of `count` groups of whole speakers.

    The groups are similar in size and in their shares of each emotion spoken by women and by men; where the sex is
    not known, of each emotion. There are fewer groups, or none, if the data are too few.
    """
    speakers = field_values(utterances, "speaker")
    for strata in ([(each.emotion, each.sex) for each in utterances], [each.emotion for each in utterances]):
        ids = np.unique(strata, axis=0, return_inverse=True)[1]
        if count <= np.bincount(ids).max():  # otherwise scikit-learn raises an error
            break
    else:
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=SHUFFLE_SEED)
    with warnings.catch_warnings():
        # It warns if a stratum has fewer utterances than there are groups; the callers check the classes.
        warnings.simplefilter("ignore", UserWarning)
        groups = [group for _, group in splitter.split(ids, ids, speakers)]
    return [group for group in groups if len(group)]


SCHEMES: dict[str, Callable[[Sequence[ManifestRow]], list[UtteranceFold]]] = {
    "auto": auto,
    "session": by_session,
    "speaker": by_speaker,
    "official": official,
    "emodarts": emodarts,
}
SCHEME_NAMES = f"{', '.join(SCHEMES)} and groupK, such as group5"  # for error messages
