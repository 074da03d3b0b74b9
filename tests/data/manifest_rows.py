"""Manifest rows for the tests of folds, halves and leaks."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Row:
    utterance: str
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""
    text: str = ""
    copy: str = ""
    sex: str = ""
    audio: str = ""
    number: int = 0  # distinguishes the windows and copies of an utterance


EMOTIONS = ["angry", "happy", "sad"]


def balanced(speakers: int, per_class: int = 2, sessions: int = 0) -> list[Row]:
    """Rows in which every speaker has every class; consecutive speakers share a session."""
    return [
        Row(f"{s}-{emotion}-{i}", f"S{s}", emotion, str(s * sessions // speakers + 1) if sessions else "")
        for s in range(speakers)
        for emotion in EMOTIONS
        for i in range(per_class)
    ]


@st.composite
def manifests(draw) -> list[Row]:
    """One row per utterance; two to six sessions of two speakers; known speakers are in one split each."""
    prefix = draw(st.sampled_from(["", "Ses0", "MSP-IMPROV-", "MSP-PODCAST_"]))
    sexes = draw(st.sampled_from([{"M": "", "F": ""}, {"M": "male", "F": "female"}, {"M": "male", "F": ""}]))
    splits = ["Train", "train", "Train", "Validation", "Test1", "test10", "Test2"]
    rows = []
    for n in range(1, draw(st.integers(5 if prefix else 2, 6)) + 1):
        for side in "MF":
            split = draw(st.sampled_from(splits))
            emotions = draw(st.lists(st.sampled_from(EMOTIONS), min_size=1, max_size=6))
            for i, emotion in enumerate(emotions):
                speaker = draw(st.sampled_from([f"0{n}{side}"] * 8 + ["", "Unknown", " unknown"]))
                name = f"{prefix}{n}{side}{i}"
                rows.append(Row(name, speaker, emotion, str(n), split, sex=sexes[side]))
    return draw(st.permutations(rows))


@st.composite
def expanded(draw, rows: list[Row]) -> list[Row]:
    """The manifest with more windows and perturbed copies of its utterances."""
    rows = list(rows)
    for row in list(rows):
        rows += [replace(row, number=n) for n in range(1, draw(st.integers(1, 3)))]
        rows += [replace(row, copy="speed:0.9", number=n) for n in range(draw(st.integers(0, 2)))]
    return draw(st.permutations(rows))


def speakers_of(rows, part: np.ndarray) -> set[str]:
    return {rows[i].speaker for i in part}


def utterances_of(rows, part: np.ndarray) -> set[str]:
    return {rows[i].utterance for i in part}
