"""Leaks of a fold: a comparison with a simple search for them, and the errors that stop a run."""

import json
import re
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_rows import Row
from sklearn.metrics import balanced_accuracy_score

from data.emotions import FOUR
from data.folds import Fold, make_folds
from data.leaks import (
    Leaks,
    check_leaks,
    describe_equal_recordings,
    describe_leaks,
    find_leaks,
    without_telling_texts,
)
from utils import UserError


@st.composite
def folded(draw) -> tuple[list[Row], Fold]:
    """Rows in one of the three parts or in none, with windows; training rows may have perturbed copies."""
    rows: list[Row] = []
    parts: tuple[list[int], ...] = ([], [], [], [])
    for n in range(draw(st.integers(3, 25))):
        row = Row(
            f"u{n}",
            speaker=draw(st.sampled_from(["1", "2", "10", "11", "12", "", "unknown"])),
            emotion=draw(st.sampled_from(FOUR)),
            session=draw(st.sampled_from(["", "1", "2", "3"])),
            text=draw(st.sampled_from(["", "improvised 1", "improvise", "1", "2", "10"])),
        )
        part = draw(st.sampled_from([0, 0, 1, 2, 2, 3]))
        copies = ["speed:0.9"] * draw(st.integers(0, 2)) if part == 0 else []
        for copy in draw(st.permutations([""] * draw(st.integers(1, 2)) + copies)):
            parts[part].append(len(rows))
            rows.append(replace(row, copy=copy))
    return rows, Fold(*(np.array(part, dtype=np.int64) for part in parts[:3]))


@settings(max_examples=100)
@given(made=folded())
def test_shared_speakers_sessions_and_texts_are_found(made) -> None:
    rows, fold = made
    train, validation, test = ([rows[n] for n in part] for part in (fold.train, fold.validation, fold.test))
    leaks = find_leaks(rows, fold)
    counts: Counter = Counter()
    for part in (train, validation, test):
        counts.update({row.speaker if row.speaker.isdigit() else "Unknown" for row in part})
    names = ("1", "2", "10", "11", "12", "Unknown")
    assert list(leaks.speakers) == [name for name in names if counts[name] > 1]
    pairs = [(one, other) for one in test for other in train + validation]
    sessions = {one.session for one, other in pairs if one.session == other.session != ""}
    assert list(leaks.sessions) == sorted(sessions)
    texts = {one.text for one, other in pairs if one.text == other.text}
    assert list(leaks.texts) == [text for text in ("1", "2", "10", "improvise") if text in texts]
    assert len(leaks.lines()) == sum(map(bool, (leaks.speakers, leaks.sessions, leaks.texts)))
    assert json.loads(json.dumps(leaks.to_json()))["leaks"] == list(leaks.kinds)


@settings(max_examples=100)
@given(made=folded())
def test_text_ua_is_the_balanced_accuracy_of_guessing_by_text(made) -> None:
    rows, fold = made
    leaks = find_leaks(rows, fold)
    if not leaks.texts:
        assert leaks.text_ua is leaks.chance is None
        return
    tested = {rows[n] for n in fold.test if rows[n].text and "improvised" not in rows[n].text}
    trained = {rows[n] for n in (*fold.train, *fold.validation) if not rows[n].copy}
    first = min(row.emotion for row in tested)
    truth = [row.emotion for row in tested]
    guesses = []
    for row in tested:
        counts = Counter(each.emotion for each in trained if each.text == row.text)
        most = max(counts.values(), default=0)
        guesses.append(min((e for e in counts if counts[e] == most), default=first))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a guess may be a class that is not in the test
        expected = balanced_accuracy_score(truth, guesses)
    assert leaks.text_ua == pytest.approx(expected, abs=1e-12)
    assert leaks.chance == 1 / len(set(truth))


def corpus(speakers: int, texts: int, text_of) -> list[Row]:
    """Rows in which each speaker says `texts` texts in each emotion; two speakers share a session."""
    return [
        Row(f"{s}-{emotion}-{t}", f"S{s}", emotion, str(s // 2), text=text_of(emotion, t))
        for s in range(speakers)
        for emotion in FOUR
        for t in range(texts)
    ]


def test_texts_that_reveal_the_emotion_are_refused() -> None:
    rows = corpus(6, 3, lambda emotion, t: f"{emotion}{t}")
    fold = make_folds(rows)[0]
    message = r"^fold 1: 12 texts .* UA of 100\.0 % \(chance 25\.0 %\); .*--allow_leak texts"
    with pytest.raises(UserError, match=message):
        check_leaks(rows, fold, (), "fold 1")
    with pytest.raises(UserError, match=r"prepare\.py --drop_leaks texts leaves out the utterances"):
        check_leaks(rows, fold, (), "fold 1")
    leaks = check_leaks(rows, fold, ("texts",), "fold 1")
    assert leaks.kinds == ("texts",)
    assert leaks.to_json() == {
        "leaks": ["texts"], "speakers": [], "sessions": [], "texts": 12, "text_ua": 1.0, "chance": 0.25,
        "recordings": [],
    }  # fmt: skip


def test_texts_said_in_every_emotion_are_reported_but_no_leak() -> None:
    rows = corpus(6, 3, lambda emotion, t: f"t{t}")
    leaks = check_leaks(rows, make_folds(rows)[0], (), "fold 1")
    assert leaks.kinds == ()
    guess = "guessing the emotion from the text alone gives a UA of 25.0 % (chance 25.0 %)"
    assert leaks.lines() == [f"3 texts are in training and test; {guess}"]


@pytest.mark.parametrize("text", ["", "improvised 4"])
def test_improvised_utterances_share_no_text(text: str) -> None:
    rows = corpus(6, 3, lambda emotion, t: text)
    assert check_leaks(rows, make_folds(rows)[0], (), "fold 1") == Leaks()
    assert Leaks().lines() == []


@pytest.mark.parametrize(
    ("text_ua", "chance", "kinds"), [(0.4375, 0.25, ()), (0.438, 0.25, ("texts",)), (1.0, 1.0, ())]
)
def test_texts_leak_above_a_quarter_of_the_way_from_chance_to_one(
    text_ua: float, chance: float, kinds: tuple[str, ...]
) -> None:
    assert Leaks((), (), ("t",), text_ua, chance).kinds == kinds


def test_shared_sessions_are_refused_unless_allowed() -> None:
    rows = corpus(6, 1, lambda emotion, t: "")
    fold = make_folds(rows, "speaker")[0]
    message = r"^here: session 0 is in training and test; --folds_by session shares none; .* sessions texts "
    with pytest.raises(UserError, match=message):
        check_leaks(rows, fold, ("speakers", "texts"), "here")
    assert check_leaks(rows, fold, ("sessions",), "here").lines() == ["session 0 is in training and test"]


def test_shared_speakers_are_reported_first_and_abbreviated() -> None:
    rows = corpus(10, 1, lambda emotion, t: "")
    fold = Fold(np.arange(0, 40, 4), np.arange(1, 40, 4), np.arange(2, 40, 4))
    line = "speakers S0, S1, S2, S3, S4, S5, S6, S7 and 2 more are in two of training, validation and test"
    message = (
        rf"^here: {line}; sessions .*; --folds_by session .*--allow_leak speakers sessions .*metrics\.json"
    )
    with pytest.raises(UserError, match=message):
        check_leaks(rows, fold, (), "here")
    with pytest.raises(UserError, match="here: sessions 0, 1, 2, 3, 4 are in training and test"):
        check_leaks(rows, fold, ("speakers",), "here")
    assert find_leaks(rows, fold).lines()[0] == line


def refusal(rows: list[Row], scheme: str, allowed: tuple[str, ...] = ()) -> str | None:
    """The error of the first fold of a scheme that cannot be used."""
    try:
        for number, fold in enumerate(make_folds(rows, scheme), 1):
            check_leaks(rows, fold, allowed, f"fold {number}")
    except UserError as error:
        return str(error)
    return None


CIRCLES = {
    "every speaker is in two sessions": lambda n, s: str((n + s) % 2),
    "one speaker is in two sessions": lambda n, s: str(s // 2) if s else str(n % 2),
    "two sessions": lambda n, s: str(s // 4),
    "three sessions": lambda n, s: str(s // 3),
    "one session": lambda n, s: "1",
}


@pytest.mark.parametrize("case", CIRCLES)
@pytest.mark.parametrize("scheme", ["session", "speaker", "auto", "group5", "official"])
def test_following_the_advice_of_a_refusal_leads_to_folds(case: str, scheme: str) -> None:
    """Each scheme and each permission is tried once at most: advice never leads in a circle."""
    rows = [
        Row(f"{s}-{n}", f"S{s}", FOUR[n % 4], CIRCLES[case](n, s), split="train" if n % 3 else "test")
        for s in range(8)
        for n in range(12)
    ]
    allowed: tuple[str, ...] = ()
    tried = set()
    while error := refusal(rows, scheme, allowed):
        assert (scheme, allowed) not in tried
        tried.add((scheme, allowed))
        advice = re.search(r"--folds_by (\w+) (?:has folds|shares none)", error)
        if advice:
            scheme = advice[1]
        else:
            allowed = tuple(re.search(r"--allow_leak ([a-z ]+) \(", error)[1].split())


# ---------------------------------------------------------------- equal recordings


def recorded(*audio: str) -> list[Row]:
    """One row for each digest, of a speaker of its own."""
    return [Row(f"u{n}", f"S{n}", FOUR[n % 4], audio=each) for n, each in enumerate(audio)]


@pytest.mark.parametrize(
    ("parts", "shared"),
    [
        (((0,), (1,), (2, 3)), ("u0 = u2",)),
        (((0,), (2,), (1, 3)), ("u0 = u2",)),
        (((1,), (0,), (2, 3)), ("u0 = u2",)),
        (((0, 2), (1,), (3,)), ()),
        (((1,), (3,), (0, 2)), ()),
    ],
)
def test_a_recording_in_two_parts_is_a_leak(parts: tuple, shared: tuple[str, ...]) -> None:
    rows = recorded("a", "b", "a", "")
    fold = Fold(*(np.array(part) for part in parts))
    leaks = find_leaks(rows, fold)
    assert leaks.recordings == shared
    assert leaks.kinds == (("recordings",) if shared else ())
    if shared:
        assert leaks.to_json()["recordings"] == ["u0 = u2"]
        message = r"^here: the same recording is in two .*\(u0 = u2\); keep one of each .* texts recordings "
        with pytest.raises(UserError, match=message):
            check_leaks(rows, fold, ("speakers", "texts", "sessions"), "here")
        assert check_leaks(rows, fold, ("recordings",), "here") == leaks


def test_recordings_without_a_digest_are_not_compared() -> None:
    rows = recorded("", "", "")
    assert find_leaks(rows, Fold(*np.arange(3)[:, None])) == Leaks()


def test_clips_and_copies_of_an_utterance_are_one_recording() -> None:
    (row,) = recorded("a")
    rows = [row, replace(row, number=1), replace(row, copy="speed:0.9"), *recorded("x", "y", "z")[1:]]
    assert find_leaks(rows, Fold(np.array([0, 1, 2]), np.array([3]), np.array([4]))).recordings == ()
    assert describe_equal_recordings(rows) == []


def test_equal_recordings_are_listed_the_worse_ones_apart() -> None:
    rows = recorded("a", "a", "b", "b", "c", "c", "d", "")
    rows[3] = replace(rows[3], speaker="S2")
    rows[5] = replace(rows[5], speaker="S4", emotion=rows[4].emotion)
    assert describe_equal_recordings(rows) == [
        "equal recordings of two speakers: u0 = u1",
        "equal recordings with two labels: u2 = u3",
        "equal recordings listed twice: u4 = u5",
    ]


# ---------------------------------------------------------------- the lines of prepare.py


def test_harmless_texts_have_one_line_and_each_leak_a_marked_one() -> None:
    fair = Leaks(texts=("a", "b"), text_ua=0.3, chance=0.25)
    telling = Leaks(texts=("a",), text_ua=0.9, chance=0.25)
    lines = describe_leaks([fair, replace(fair, text_ua=0.26), telling, Leaks(sessions=("1",)), Leaks()])
    assert [line.split(":")[0] for line in lines] == ["LEAK  fold 3", "LEAK  fold 4", "no leak"]
    assert "in 2 of 5 folds, training and test share up to 2 texts" in lines[2]
    assert "a UA of at most 30.0 % (chance 25.0 %)" in lines[2]
    assert describe_leaks([Leaks()] * 3) == []


# ---------------------------------------------------------------- --drop_leaks texts


def test_texts_that_reveal_the_emotion_are_left_out_and_the_others_kept() -> None:
    telling = corpus(6, 2, lambda emotion, t: f"{emotion}{t}")
    fair = [replace(row, utterance=f"x{row.utterance}") for row in corpus(6, 3, lambda emotion, t: f"t{t}")]
    free = [Row(f"f{s}", f"S{s}", "sad", text="improvised sad") for s in range(6)]
    silent = [Row(f"n{s}", f"S{s}", "sad") for s in range(6)]
    once = [Row("o", "S0", "sad", text="only S0 says this"), Row("p", "S0", "sad", text="only S0 says this")]
    others = [*fair, *free, *silent, *once]
    assert without_telling_texts([*telling, *others]) == others


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_no_fold_leaks_after_the_texts_were_left_out(share: float) -> None:
    """Of 40 texts, half are said in one emotion with this probability, and half by turns in all four."""
    rng = np.random.default_rng(0)
    rows = []
    for s in range(10):
        for t in range(40):
            sure = t < 20 and rng.random() < share
            emotion = FOUR[t % 4] if sure else FOUR[rng.integers(4) if t < 20 else (s + t) % 4]
            rows.append(Row(f"{s}-{t:02d}", f"S{s}", emotion, text=f"t{t:02d}"))
    assert any(find_leaks(rows, fold).kinds for fold in make_folds(rows)) == (share > 0.5)
    kept = without_telling_texts(rows)
    assert {row.text for row in kept} >= {f"t{t}" for t in range(20, 40)}
    assert not any(find_leaks(kept, fold).kinds for fold in make_folds(kept))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_unknown_speakers_count_as_one(part: int) -> None:
    rows = [Row(str(n), speaker, "sad") for n, speaker in enumerate(("Unknown", "", "3"))]
    fold = Fold(*np.roll(np.arange(3), part)[:, None])
    assert find_leaks(rows, fold).speakers == ("Unknown",)


@pytest.mark.parametrize("scheme", ["auto", "session", "speaker", "group3", "emodarts"])
def test_folds_share_no_speakers(scheme: str) -> None:
    rows = [
        Row(f"Ses0{k}{side}{emotion}", f"0{k}{side}", emotion, str(k), text=f"script {emotion}")
        for k in range(1, 6)
        for side in "FM"
        for emotion in FOUR
    ]
    for fold in make_folds(rows, scheme):
        leaks = find_leaks(rows, fold)
        assert leaks.speakers == ()
        assert bool(leaks.sessions) == (scheme not in ("auto", "session"))
