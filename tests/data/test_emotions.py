"""Selection and renaming of labels."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpora.utterance import Utterance
from data.emotions import left_out, pick_emotions
from utils import UserError


def corpus(*emotions: str) -> list[Utterance]:
    return [Utterance(str(i), Path(f"{i}.wav"), "S", emotion) for i, emotion in enumerate(emotions)]


def test_labels_are_selected_renamed_and_merged() -> None:
    utterances = corpus("happy", "fear", "excited", "sad", "happy")
    picked = pick_emotions(utterances, ["happy", "excited:happy", "sad:low"])
    expected = [("0", "happy"), ("2", "happy"), ("3", "low"), ("4", "happy")]
    assert [(each.utterance, each.emotion) for each in picked] == expected


def test_two_labels_can_be_exchanged() -> None:
    assert [each.emotion for each in pick_emotions(corpus("a", "b"), ["a:b", "b:a"])] == ["b", "a"]


@given(st.lists(st.text("abc", min_size=1, max_size=2)))
def test_all_keeps_everything(emotions: list[str]) -> None:
    assert pick_emotions(corpus(*emotions), ["all"]) == corpus(*emotions)


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        (["angry"], r"^--emotions: the corpus has no 'angry'; it has happy \(2\), sad \(1\)$"),
        (["sad", "hapy:glad"], r"no 'hapy' \(did you mean 'happy'\?\); it has happy \(2\), sad \(1\)$"),
        (["SADD"], r"no 'SADD' \(did you mean 'sad'\?\); it has"),
        (["sad", "Sad:low"], "Sad is picked twice"),
    ],
)
def test_invalid_picks_are_refused(picks: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pick_emotions(corpus("sad", "happy", "happy"), picks)


@pytest.mark.parametrize("label", ["ANGRY", "Angry ", " angry", "an\u200bgry", "\uff21ngry"])
def test_labels_are_picked_in_any_spelling(label: str) -> None:
    utterances = corpus("sad", label, "angry")
    assert [each.emotion for each in pick_emotions(utterances, ["angry", "Sad:low"])] == [
        "low",
        "angry",
        "angry",
    ]
    assert [each.emotion for each in pick_emotions(utterances, [label])] == [label.strip()] * 2


def test_classes_in_two_spellings_are_one() -> None:
    picked = pick_emotions(corpus("happy", "excited"), ["happy:Joy", "excited:joy"])
    assert [each.emotion for each in picked] == ["Joy", "Joy"]


@pytest.mark.parametrize("label", ["nan", "NaN", "None", "N/A", "", "?", "unknown"])
def test_all_leaves_out_labels_that_say_nothing(label: str) -> None:
    utterances = corpus("sad", label, "happy", label)
    picked = pick_emotions(utterances, ["ALL"])
    assert [each.emotion for each in picked] == ["sad", "happy"]
    assert left_out(utterances, picked) == Counter({label: 2})
    if label:
        assert len(pick_emotions(utterances, [label])) == 2, "it can be picked by its name"
