"""Properties of the folds, on manifests made by chance."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.folds import choose_fold, halves, make_folds, natural
from utils import UserError


def row(utterance: str, speaker: str, emotion: str, session: str = "") -> SimpleNamespace:
    return SimpleNamespace(utterance=utterance, speaker=speaker, emotion=emotion, session=session)


def balanced(speakers: int, per_class: int = 2, sessions: int = 0) -> list[SimpleNamespace]:
    """Every speaker has every class; neighbours share a session."""
    return [
        row(f"{s}-{emotion}-{i}", f"S{s}", emotion, str(s * sessions // speakers + 1) if sessions else "")
        for s in range(speakers)
        for emotion in ("angry", "happy", "sad")
        for i in range(per_class)
    ]


@st.composite
def manifests(draw) -> list[SimpleNamespace]:
    """Two to ten speakers, in sessions of their own, each with any mix of up to three classes."""
    rows = []
    for s in range(draw(st.integers(2, 10))):
        session = draw(st.sampled_from(["1", "2", "3", "10"]))
        emotions = draw(st.lists(st.sampled_from(["angry", "happy", "sad"]), min_size=1, max_size=8))
        rows += [row(f"{s}-{i}", f"S{s}", emotion, session) for i, emotion in enumerate(emotions)]
    return draw(st.permutations(rows))


def speakers_of(rows, part: np.ndarray) -> set[str]:
    return {rows[i].speaker for i in part}


def check(rows, folds) -> None:
    """What every set of folds owes."""
    classes = {r.emotion for r in rows}
    assert len(folds) >= 2
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(rows)))
    for fold in folds:
        parts = fold.train, fold.validation, fold.test
        assert sorted(np.concatenate(parts)) == list(range(len(rows)))
        assert all(len(part) and (np.diff(part) > 0).all() for part in parts)
        assert sum(len(speakers_of(rows, part)) for part in parts) == len({r.speaker for r in rows})
        assert {rows[i].emotion for i in fold.train} == classes


def named(rows, folds) -> list[tuple[frozenset, ...]]:
    return [
        tuple(frozenset(rows[i].utterance for i in part) for part in (fold.train, fold.validation, fold.test))
        for fold in folds
    ]


@settings(max_examples=60, deadline=None)
@given(rows=manifests(), scheme=st.sampled_from(["auto", "session", "speaker", "group2", "group3", "group5"]))
def test_any_manifest_gives_fair_folds_or_a_reason(rows, scheme: str) -> None:
    try:
        folds = make_folds(rows, scheme)
    except UserError:
        return
    check(rows, folds)


@settings(max_examples=25, deadline=None)
@given(rows=manifests(), scheme=st.sampled_from(["auto", "session", "speaker", "group3"]), random=st.randoms())
def test_the_order_of_rows_does_not_matter(rows, scheme: str, random) -> None:
    try:
        before = named(rows, make_folds(rows, scheme))
    except UserError:
        assume(False)
    random.shuffle(rows)
    assert named(rows, make_folds(rows, scheme)) == before


@settings(max_examples=25, deadline=None)
@given(speakers=st.integers(3, 12), per_class=st.integers(1, 6), sessions=st.integers(0, 6))
def test_balanced_data_always_have_folds_with_all_classes_in_validation(speakers, per_class, sessions) -> None:
    rows = balanced(speakers, per_class, min(sessions, speakers))
    for scheme in ("auto", "speaker", "group3"):
        folds = make_folds(rows, scheme)
        check(rows, folds)
        assert all(len({rows[i].emotion for i in fold.validation}) == 3 for fold in folds)


def test_session_folds_are_in_natural_order_with_a_quarter_for_validation() -> None:
    rows = balanced(10, per_class=4, sessions=5)
    for r in rows:
        r.session = {"1": "Ses10", "2": "Ses9", "3": "Ses1", "4": "Ses2", "5": "Ses30"}[r.session]
    folds = make_folds(rows)
    check(rows, folds)
    assert [rows[fold.test[0]].session for fold in folds] == ["Ses1", "Ses2", "Ses9", "Ses10", "Ses30"]
    assert {len(speakers_of(rows, fold.validation)) for fold in folds} == {2}


def test_speaker_folds_are_in_natural_order() -> None:
    rows = balanced(11)
    assert [rows[fold.test[0]].speaker for fold in make_folds(rows, "speaker")][1:3] == ["S1", "S2"]


@pytest.mark.parametrize(("speakers", "sessions", "folds"), [(12, 4, 4), (12, 2, 5), (12, 0, 5), (4, 0, 4), (3, 0, 3)])
def test_auto(speakers: int, sessions: int, folds: int) -> None:
    assert len(make_folds(balanced(speakers, sessions=sessions))) == folds


def test_auto_leaves_sessions_that_share_a_speaker_or_are_not_known() -> None:
    rows = balanced(8, sessions=4)
    rows[0].session = "4"
    assert len(make_folds(rows)) == 5
    with pytest.raises(UserError, match="speaker S0 is in more than one session"):
        make_folds(rows, "session")
    rows[0].session = ""
    assert len(make_folds(rows)) == 5
    with pytest.raises(UserError, match="utterance 0-angry-0 has no session"):
        make_folds(rows, "session")


def test_a_rare_class_stays_in_training() -> None:
    rows = balanced(8)
    rows += [row(f"rare-{s}", f"S{s}", "fearful") for s in (1, 5)]
    check(rows, make_folds(rows, "speaker"))
    with pytest.raises(UserError, match=r"fold 2 of .*only test speakers have fearful"):
        make_folds(rows[:-1], "speaker")


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (balanced(2), "auto", "2 speakers"),
        ([], "auto", "0 speakers"),
        ([*balanced(4), row("x", "Unknown", "sad")], "auto", "1 utterances have no known speaker .the first: x"),
        ([*balanced(4), row("x", "", "sad")], "auto", "no known speaker"),
        (balanced(4), "session", "no session"),
        (balanced(4, sessions=1), "session", "only one session"),
        (balanced(4), "group5", "4 speakers make 2 to 4 groups"),
        (balanced(4), "group1", "2 to 4 groups"),
        (balanced(4), "groupK", "unknown fold scheme 'groupK'"),
    ],
)
def test_errors(rows, scheme: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(rows, scheme)


def test_folds_are_numbered_from_one() -> None:
    folds = make_folds(balanced(4))
    assert choose_fold(folds, 1) is folds[0]
    assert choose_fold(folds, 4) is folds[3]
    for fold in (0, 5, -1):
        with pytest.raises(UserError, match=f"fold {fold} out of range: this dataset has folds 1 to 4"):
            choose_fold(folds, fold)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_halves_share_each_class_out(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(0, len(labels))
    weights, alphas = halves(rows[::-1], labels, 0.5, seed)
    assert sorted([*weights, *alphas]) == list(rows)
    assert abs(len(weights) - len(alphas)) <= 1
    for number, count in enumerate(counts):
        assert abs((labels[weights] == number).sum() - count / 2) <= 1
    again = halves(rows, labels, 0.5, seed)
    assert all(np.array_equal(a, b) for a, b in zip(again, (weights, alphas), strict=True))


def test_halves_look_only_at_their_rows() -> None:
    labels = np.array([0, 0, 1, 1, 1, 0, 1, 0])
    weights, alphas = halves(np.array([0, 1, 3, 4]), labels, 0.5, seed=0)
    assert sorted([*weights, *alphas]) == [0, 1, 3, 4]
    with pytest.raises(UserError, match="class 1 has a single training utterance"):
        halves(np.array([0, 1, 2]), labels, 0.5, seed=0)
    with pytest.raises(UserError, match=r"train_portion 0\.05"):
        halves(np.arange(8), labels, 0.05, seed=0)


def test_natural_order() -> None:
    assert sorted(["S10", "S2", "a", "10", "S1b", "9"], key=natural) == ["9", "10", "S1b", "S2", "S10", "a"]
    assert natural("S01") != natural("S1")
