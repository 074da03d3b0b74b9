"""The named schemes: which utterances a fold tests, and which stand on its training side.

A scheme is a function from utterances, sorted by name, to the sides of each fold; a new one is a line in `REGISTRY`.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from utils import UserError

SEED = 0  # of the speakers' order before they are dealt out; fixed, since folds must be the same everywhere
SPLITS = {"train": "train", "training": "train"}  # as publishers name them
SPLITS |= dict.fromkeys(("development", "dev", "validation", "valid", "val", "evaluation"), "validation")


class Labelled(Protocol):
    """What the folds need of a manifest's row; rows of one utterance are its windows and perturbed copies."""

    utterance: str
    speaker: str
    session: str
    emotion: str
    split: str
    text: str
    copy: str  # how the row was perturbed, such as speed:0.9; empty for an original


@dataclass(frozen=True, eq=False)
class Sides:
    """Positions of the utterances of a fold; those on neither side are in no part of it."""

    training: np.ndarray
    test: np.ndarray
    validation: np.ndarray = field(
        default_factory=lambda: np.empty(0, np.int64)
    )  # none: to be taken from `training`


def sides_of(utterances: Sequence[Labelled], scheme: str) -> list[Sides]:
    """The sides of each fold of a scheme. Raises `UserError` for an unknown scheme, or one that the data do not fit."""
    if match := re.fullmatch(r"group(\d{1,6})", scheme):
        return groups(utterances, int(match[1]))
    if scheme not in REGISTRY:
        raise UserError(f"unknown fold scheme {scheme!r}: known are {SCHEMES}")
    return REGISTRY[scheme](utterances)


def auto(utterances: Sequence[Labelled]) -> list[Sides]:
    """`session` where all have one, no speaker is in two and there are three or more; otherwise up to five groups."""
    sessions = {each.session for each in utterances}
    if len(sessions) >= 3 and "" not in sessions and not _wandering(utterances):
        return by_session(utterances)
    return groups(utterances, min(5, len(set(column(utterances, "speaker")))))


def by_session(utterances: Sequence[Labelled]) -> list[Sides]:
    """Leave one session out. Raises `UserError` for a lone or missing session, or a speaker who is in two."""
    for each in utterances:
        if not each.session:
            raise UserError(
                f"fold scheme 'session': utterance {each.utterance} has no session; try speaker or group5"
            )
    if wandering := _wandering(utterances):
        raise UserError(
            f"fold scheme 'session': speaker {wandering[0]} is in more than one session, so would be in training"
            " and test at once; try speaker or group5"
        )
    tests = one_by_one(column(utterances, "session"))
    if len(tests) < 2:
        raise UserError("fold scheme 'session': there is only one session; try speaker or group5")
    return _against_the_rest(utterances, tests)


def by_speaker(utterances: Sequence[Labelled]) -> list[Sides]:
    """Leave one speaker out."""
    return _against_the_rest(utterances, one_by_one(column(utterances, "speaker")))


def groups(utterances: Sequence[Labelled], count: int) -> list[Sides]:
    """Leave out one of `count` groups of speakers, alike in size and class balance. Raises `UserError` for too many."""
    speakers = column(utterances, "speaker")
    most = len(set(speakers))
    if not 2 <= count <= most:
        raise UserError(f"fold scheme 'group{count}': {most} speakers make 2 to {most} groups")
    tests = deal(column(utterances, "emotion"), speakers, count)
    if len(tests) < count:
        raise UserError(f"fold scheme 'group{count}': too few utterances to fill so many groups; try speaker")
    return _against_the_rest(utterances, tests)


def official(utterances: Sequence[Labelled]) -> list[Sides]:
    """The publisher's partition: a fold a test set, in natural order; the other test sets are in no part of it.

    Raises `UserError` for an utterance without a split, a split that is unknown, and where training or test lacks.
    """
    splits = np.array([_split(each) for each in utterances], dtype=np.str_)
    tests = sorted({split for split in splits if split.startswith("test")}, key=natural)
    if not tests or "train" not in splits:
        lacks = "training" if tests else "test"
        raise UserError(f"fold scheme 'official': no utterance is in a {lacks} split; try speaker or group5")
    return [
        Sides(*(np.flatnonzero(splits == part) for part in ("train", test, "validation"))) for test in tests
    ]


def emodarts(utterances: Sequence[Labelled]) -> list[Sides]:
    """The test speakers of the published emoDARTS code, for comparison; the utterances' names tell the corpus.

    IEMOCAP: fold k tests the man of session k and the woman of the next, whose partners stay in training.
    MSP-IMPROV: sessions 1, 2, 3 and 5; 4 and 6 are never tested. MSP-Podcast: `_podcast_groups`.
    Raises `UserError` for other corpora, and for one that lacks what a fold tests.
    """
    names = {each.utterance for each in utterances}
    if all(name.startswith("MSP-PODCAST_") for name in names):
        return _podcast_groups(utterances)
    if all(name.startswith("Ses0") for name in names):
        kind, tests = "speaker", [(f"0{k}M", f"0{k % 5 + 1}F") for k in range(1, 6)]
    elif all(name.startswith("MSP-IMPROV-") for name in names):
        kind, tests = "session", [("1",), ("2",), ("3",), ("5",)]
    else:
        raise UserError(
            "fold scheme 'emodarts' is known for IEMOCAP, MSP-IMPROV and MSP-Podcast alone; try auto"
        )
    values = column(utterances, kind)
    if missing := sorted(set().union(*tests) - set(values)):
        raise UserError(
            f"fold scheme 'emodarts' tests {kind} {missing[0]}, of which there is no utterance; try auto"
        )
    return _against_the_rest(utterances, [np.flatnonzero(np.isin(values, test)) for test in tests])


def _podcast_groups(utterances: Sequence[Labelled]) -> list[Sides]:
    """Train, Test1 and Test2 pooled, their speakers, sorted as text, in five groups; fold 1 tests the last group.

    A group is full with more than a fifth of the utterances, so that there is never a sixth.
    """
    pool = np.flatnonzero([each.split.strip().lower() in ("train", "test1", "test2") for each in utterances])
    speakers = column(utterances, "speaker")[pool]
    tests: list[list[int]] = [[]]
    for speaker in sorted(set(speakers)):
        if len(tests[-1]) > len(pool) // 5:
            tests.append([])
        tests[-1] += pool[speakers == speaker].tolist()
    if len(tests) < 5:
        raise UserError(
            f"fold scheme 'emodarts': the {len(pool)} utterances of known speakers in Train, Test1 and Test2 fill"
            f" {len(tests)} of its 5 groups of speakers; try group5"
        )
    return [Sides(np.setdiff1d(pool, test), np.sort(test)) for test in reversed(tests)]


def _split(utterance: Labelled) -> str:
    """`train`, `validation`, or the name of the test set."""
    name, where = utterance.split.strip().lower(), f"fold scheme 'official': utterance {utterance.utterance}"
    if not name:
        raise UserError(f"{where} has no split; try session, speaker or group5")
    if name not in SPLITS and not name.startswith("test"):
        raise UserError(
            f"{where} is in the unknown split {utterance.split!r}: known are {', '.join(SPLITS)}, test..."
        )
    return SPLITS.get(name, name)


def _wandering(utterances: Sequence[Labelled]) -> list[str]:
    """The speakers that are in more than one session."""
    pairs = sorted({(each.speaker, each.session) for each in utterances})
    return [speaker for (speaker, _), (again, _) in pairwise(pairs) if speaker == again]


def _against_the_rest(utterances: Sequence[Labelled], tests: Sequence[np.ndarray]) -> list[Sides]:
    return [Sides(np.setdiff1d(np.arange(len(utterances)), test), test) for test in tests]


def column(utterances: Sequence[Labelled], name: str) -> np.ndarray:
    """The field `name` of each."""
    return np.array([getattr(each, name) for each in utterances], dtype=np.str_)


def natural(text: str) -> tuple:
    """A sort key that puts `S2` before `S10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)], text


def one_by_one(names: np.ndarray) -> list[np.ndarray]:
    """The positions of each name, in natural order of the names."""
    return [np.flatnonzero(names == name) for name in sorted(set(names), key=natural)]


def deal(emotions: np.ndarray, speakers: np.ndarray, count: int) -> list[np.ndarray]:
    """Up to `count` groups of whole speakers, alike in size and class balance; none where the data are too few."""
    if count > np.unique(emotions, return_counts=True)[1].max():  # scikit-learn refuses
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a class rarer than the groups: the callers look at that
        parts = [part for _, part in splitter.split(emotions, emotions, speakers)]
    return [part for part in parts if len(part)]


REGISTRY = {
    "auto": auto,
    "session": by_session,
    "speaker": by_speaker,
    "official": official,
    "emodarts": emodarts,
}
SCHEMES = f"{', '.join(REGISTRY)} and groupK, such as group5"  # for messages
