"""What is shared by the parts of a fold, against the plainest way to find it, and what stops a run."""

import json
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from data.folds import Fold, make_folds
from data.leaks import Leaks, find_leaks, verify
from utils import UserError

EMOTIONS = ("angry", "happy", "neutral", "sad")


@dataclass(frozen=True)
class Row:
    utterance: str
    speaker: str
    session: str
    emotion: str
    text: str = ""
    split: str = ""
    copy: str = ""


@st.composite
def folded(draw) -> tuple[list[Row], Fold]:
    """Rows in any of three parts or none, with windows; in training some perturbed copies."""
    rows, parts = [], ([], [], [], [])
    for n in range(draw(st.integers(3, 25))):
        row = Row(
            f"u{n}",
            draw(st.sampled_from(["1", "2", "10", "11", "12", "", "unknown"])),
            draw(st.sampled_from(["", "1", "2", "3"])),
            draw(st.sampled_from(EMOTIONS)),
            draw(st.sampled_from(["", "improvised 1", "improvise", "1", "2", "10"])),
        )
        part = draw(st.sampled_from([0, 0, 1, 2, 2, 3]))
        copies = ["speed:0.9"] * draw(st.integers(0, 2)) if part == 0 else []
        for copy in draw(st.permutations([""] * draw(st.integers(1, 2)) + copies)):
            parts[part].append(len(rows))
            rows.append(Row(row.utterance, row.speaker, row.session, row.emotion, row.text, copy=copy))
    return rows, Fold(*(np.array(part, dtype=np.int64) for part in parts[:3]))


def pairs(values: list[set[str]]) -> set[str]:
    return (values[0] & values[1]) | (values[0] & values[2]) | (values[1] & values[2])


@settings(max_examples=100, deadline=None)
@given(made=folded())
def test_what_is_shared(made) -> None:
    rows, fold = made
    train, validation, test = ([rows[n] for n in part] for part in (fold.train, fold.validation, fold.test))
    leaks = find_leaks(rows, fold)
    speakers = [
        {row.speaker if row.speaker.isdigit() else "Unknown" for row in part}
        for part in (train, validation, test)
    ]
    assert list(leaks.speakers) == [
        name for name in ("1", "2", "10", "11", "12", "Unknown") if name in pairs(speakers)
    ]
    pairs_of_rows = [(one, other) for one in test for other in train + validation]
    sessions = {one.session for one, other in pairs_of_rows if one.session == other.session != ""}
    assert list(leaks.sessions) == sorted(sessions)
    texts = {one.text for one, other in pairs_of_rows if one.text == other.text}
    assert list(leaks.texts) == [text for text in ("1", "2", "10", "improvise") if text in texts]
    assert len(leaks.lines()) == sum(map(bool, (leaks.speakers, leaks.sessions, leaks.texts)))
    assert json.loads(json.dumps(leaks.to_json()))["leaks"] == list(leaks.kinds)


@settings(max_examples=100, deadline=None)
@given(made=folded())
def test_text_ua_is_the_balanced_accuracy_of_knowing_the_text_alone(made) -> None:
    rows, fold = made
    leaks = find_leaks(rows, fold)
    if not leaks.texts:
        assert leaks.text_ua is leaks.chance is None
        return
    tested = {rows[n] for n in fold.test if rows[n].text and "improvised" not in rows[n].text}
    known = {rows[n] for n in (*fold.train, *fold.validation) if not rows[n].copy}
    guesses = []
    for row in tested:
        heard = [each.emotion for each in known if each.text == row.text]
        guesses.append(sorted(heard, key=lambda e, heard=heard: (-heard.count(e), e))[0] if heard else "")
    first = min(row.emotion for row in tested)
    truth = [row.emotion for row in tested]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a guess of a class that is not in the test
        expected = balanced_accuracy_score(truth, [guess or first for guess in guesses])
    assert leaks.text_ua == pytest.approx(expected, abs=1e-12)
    assert leaks.chance == 1 / len(set(truth))


def corpus(speakers: int, texts: int, text_of) -> list[Row]:
    """Each speaker says `texts` texts in each emotion, in a session with a neighbour."""
    return [
        Row(f"{s}-{emotion}-{t}", f"S{s}", str(s // 2), emotion, text_of(emotion, t))
        for s in range(speakers)
        for emotion in EMOTIONS
        for t in range(texts)
    ]


def test_texts_that_tell_the_emotion_stop_a_run() -> None:
    rows = corpus(6, 3, lambda emotion, t: f"{emotion}{t}")
    fold = make_folds(rows)[0]
    with pytest.raises(
        UserError, match=r"^fold 1: 12 texts .* UA of 100\.0 % \(chance 25\.0 %\); .*--allow_leak texts"
    ):
        verify(rows, fold, (), "fold 1")
    leaks = verify(rows, fold, ("texts",), "fold 1")
    assert leaks.kinds == ("texts",)
    assert leaks.to_json() == {
        "leaks": ["texts"], "speakers": [], "sessions": [], "texts": 12, "text_ua": 1.0, "chance": 0.25
    }  # fmt: skip


def test_texts_said_in_every_emotion_are_reported_and_no_leak() -> None:
    rows = corpus(6, 3, lambda emotion, t: f"t{t}")
    leaks = verify(rows, make_folds(rows)[0], (), "fold 1")
    assert leaks.kinds == ()
    assert leaks.lines() == [
        "3 texts are in training and test; knowing the text alone gives a UA of 25.0 % (chance 25.0 %)"
    ]


@pytest.mark.parametrize("text", ["", "improvised 4"])
def test_words_of_ones_own_are_no_texts(text: str) -> None:
    rows = corpus(6, 3, lambda emotion, t: text)
    assert verify(rows, make_folds(rows)[0], (), "fold 1") == Leaks()
    assert Leaks().lines() == []


@pytest.mark.parametrize(("text_ua", "leak"), [(0.4375, False), (0.438, True)])
def test_a_quarter_of_the_way_from_chance_to_certainty_is_the_limit(text_ua: float, leak: bool) -> None:
    assert Leaks((), (), ("t",), text_ua, 0.25).kinds == (("texts",) if leak else ())


def test_texts_of_a_test_of_one_class_are_no_leak() -> None:
    assert Leaks((), (), ("t",), 1.0, 1.0).kinds == ()


def test_sessions() -> None:
    rows = corpus(6, 1, lambda emotion, t: "")
    fold = make_folds(rows, "speaker")[0]
    with pytest.raises(
        UserError, match=r"^here: session 0 is in training and test; --folds_by session .*leak sessions"
    ):
        verify(rows, fold, ("speakers", "texts"), "here")
    assert verify(rows, fold, ("sessions",), "here").lines() == ["session 0 is in training and test"]


def test_speakers_come_first_and_many_are_not_all_named() -> None:
    rows = corpus(10, 1, lambda emotion, t: "")
    fold = Fold(np.arange(0, 40, 4), np.arange(1, 40, 4), np.arange(2, 40, 4))
    line = "speakers S0, S1, S2, S3, S4, S5, S6, S7 and 2 more are in two of training, validation and test"
    with pytest.raises(
        UserError, match=rf"^here: {line}; --folds_by speaker .*--allow_leak speakers, .*metrics\.json"
    ):
        verify(rows, fold, (), "here")
    with pytest.raises(UserError, match="sessions 0, 1, 2, 3, 4 are in training and test"):
        verify(rows, fold, ("speakers",), "here")
    assert find_leaks(rows, fold).lines()[0] == line


@pytest.mark.parametrize("part", [0, 1, 2])
def test_unknown_speakers_in_two_parts_may_be_one(part: int) -> None:
    rows = [Row(str(n), speaker, "", "sad") for n, speaker in enumerate(("Unknown", "", "3"))]
    fold = Fold(*np.roll(np.arange(3), part)[:, None])
    assert find_leaks(rows, fold).speakers == ("Unknown",)


@pytest.mark.parametrize("scheme", ["auto", "session", "speaker", "group3", "emodarts"])
def test_folds_by_speakers_share_none(scheme: str) -> None:
    rows = [
        Row(f"Ses0{k}{side}{emotion}", f"0{k}{side}", str(k), emotion, f"script {emotion}")
        for k in range(1, 6)
        for side in "FM"
        for emotion in EMOTIONS
    ]
    for fold in make_folds(rows, scheme):
        leaks = find_leaks(rows, fold)
        assert leaks.speakers == ()
        assert bool(leaks.sessions) == (scheme not in ("auto", "session"))
