"""Picking and renaming labels."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpora.utterance import Utterance
from data.emotions import pick_emotions
from utils import UserError


def said(*emotions: str) -> list[Utterance]:
    return [Utterance(str(i), Path(f"{i}.wav"), "S", emotion) for i, emotion in enumerate(emotions)]


def test_picked_labels_are_kept_renamed_and_merged():
    picked = pick_emotions(
        said("happy", "fear", "excited", "sad", "happy"), ["happy", "excited:happy", "sad:low"]
    )
    assert [(u.utterance, u.emotion) for u in picked] == [
        ("0", "happy"),
        ("2", "happy"),
        ("3", "low"),
        ("4", "happy"),
    ]


def test_two_labels_can_change_places():
    assert [u.emotion for u in pick_emotions(said("a", "b"), ["a:b", "b:a"])] == ["b", "a"]


@given(st.lists(st.text("abc", min_size=1, max_size=2)))
def test_all_keeps_everything(emotions: list[str]):
    assert pick_emotions(said(*emotions), ["all"]) == said(*emotions)


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        (["angry"], r"^--emotions: the corpus has no 'angry'; it has happy \(2\), sad \(1\)$"),
        (["sad", "hapy:glad"], r"no 'hapy' \(did you mean 'happy'\?\); it has happy \(2\), sad \(1\)$"),
        (["SAD"], r"no 'SAD' \(did you mean 'sad'\?\); it has"),
        (["sad", "sad:low"], "sad is picked twice"),
    ],
)
def test_picks_that_fit_nothing_are_told(picks: list[str], message: str):
    with pytest.raises(UserError, match=message):
        pick_emotions(said("sad", "happy", "happy"), picks)
