"""Properties of the folds and of the halves, on manifests made by chance."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.folds import Fold, choose_fold, halves, make_folds, natural
from utils import UserError

SCHEMES = ["auto", "session", "speaker", "group2", "group3", "group5", "official", "emodarts"]
EMOTIONS = ["angry", "happy", "sad"]


@dataclass(frozen=True)
class Row:
    utterance: str
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""
    text: str = ""
    copy: str = ""
    number: int = 0  # of a window or a copy: makes each row of an utterance itself


def balanced(speakers: int, per_class: int = 2, sessions: int = 0) -> list[Row]:
    """Every speaker has every class; neighbours share a session."""
    return [
        Row(f"{s}-{emotion}-{i}", f"S{s}", emotion, str(s * sessions // speakers + 1) if sessions else "")
        for s in range(speakers)
        for emotion in EMOTIONS
        for i in range(per_class)
    ]


@st.composite
def manifests(draw) -> list[Row]:
    """A row an utterance of two to six pairs, each in a session; every speaker is in one split, or all are unknown."""
    prefix, rows = draw(st.sampled_from(["", "Ses0", "MSP-IMPROV-", "MSP-PODCAST_"])), []
    for n in range(1, draw(st.integers(5 if prefix else 2, 6)) + 1):
        for side in "MF":
            split = draw(
                st.sampled_from(["Train", "train", "Train", "Validation", "Test1", "test10", "Test2"])
            )
            emotions = draw(st.lists(st.sampled_from(EMOTIONS), min_size=1, max_size=6))
            for i, emotion in enumerate(emotions):
                speaker = draw(st.sampled_from([f"0{n}{side}"] * 8 + ["", "Unknown", " unknown"]))
                rows.append(Row(f"{prefix}{n}{side}{i}", speaker, emotion, str(n), split))
    return draw(st.permutations(rows))


@st.composite
def spread(draw, rows: list[Row]) -> list[Row]:
    """The manifest with some more windows and perturbed copies of its utterances."""
    rows = list(rows)
    for row in list(rows):
        rows += [replace(row, number=n) for n in range(1, draw(st.integers(1, 3)))]
        rows += [replace(row, copy="speed:0.9", number=n) for n in range(draw(st.integers(0, 2)))]
    return draw(st.permutations(rows))


def folds_of(rows, scheme: str, **options) -> list[Fold]:
    try:
        return make_folds(rows, scheme, **options)
    except UserError:
        assume(False)


def parts_of(fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return fold.train, fold.validation, fold.test


def speakers_of(rows, part: np.ndarray) -> set[str]:
    return {rows[i].speaker for i in part}


def utterances_of(rows, part: np.ndarray) -> set[str]:
    return {rows[i].utterance for i in part}


def named(rows, folds) -> list[tuple[set, ...]]:
    return [tuple({rows[i] for i in part} for part in parts_of(fold)) for fold in folds]


def check(rows, folds, whole: bool = True) -> None:
    """What every set of folds owes; `whole`: tests, and the parts of each fold, hold all known speakers' rows."""
    known = [n for n, row in enumerate(rows) if row.speaker.strip().lower() not in ("", "unknown")]
    originals = [n for n in known if not rows[n].copy]
    tested = np.concatenate([fold.test for fold in folds])
    assert len(set(tested)) == len(tested)
    for fold in folds:
        parts = parts_of(fold)
        assert all(len(part) and (np.diff(part) > 0).all() for part in parts)
        assert set(np.concatenate(parts)) <= set(known)
        for name in ("speaker", "utterance"):
            values = [{getattr(rows[i], name) for i in part} for part in parts]
            assert sum(map(len, values)) == len(set().union(*values))
        assert not any(rows[i].copy for part in parts[1:] for i in part)
        in_train = utterances_of(rows, fold.train)
        assert all(rows[n].utterance not in in_train for n in set(known) - set(fold.train))
        assert {rows[i].emotion for i in fold.train} == {rows[i].emotion for part in parts for i in part}
        if whole:
            assert set(originals) <= set(np.concatenate(parts))
    if whole:
        assert len(folds) >= 2
        assert sorted(tested) == originals


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_manifest_gives_fair_folds_or_a_reason(scheme: str, data) -> None:
    rows = data.draw(spread(data.draw(manifests())))
    check(rows, folds_of(rows, scheme), whole=scheme not in ("official", "emodarts"))


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_windows_copies_and_the_order_of_rows_change_no_utterances_part(scheme: str, data) -> None:
    plain = data.draw(manifests())
    folds = folds_of(plain, scheme)
    rows = data.draw(spread(plain))
    for before, after in zip(folds, make_folds(rows, scheme), strict=True):
        for part, again in zip(parts_of(before), parts_of(after), strict=True):
            assert utterances_of(plain, part) == utterances_of(rows, again)
        assert {row for row in rows if row.utterance in utterances_of(rows, after.train)} == {
            rows[i] for i in after.train
        }
    moved = data.draw(st.permutations(rows))
    assert named(moved, make_folds(moved, scheme)) == named(rows, make_folds(rows, scheme))


def test_the_first_original_row_speaks_for_its_utterance() -> None:
    plain = balanced(6)
    odd = {"speaker": "Unknown", "emotion": "fearful", "number": 1}
    rows = (
        [replace(row, **odd, copy="speed:0.9") for row in plain]
        + plain
        + [replace(row, **odd) for row in plain]
    )
    for before, after in zip(make_folds(plain), make_folds(rows), strict=True):
        assert [utterances_of(rows, part) for part in parts_of(after)] == [
            utterances_of(plain, part) for part in parts_of(before)
        ]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_official_can_keep_unknown_speakers_but_never_validates_on_them_by_its_own_choice(data) -> None:
    rows = data.draw(spread(data.draw(manifests())))
    given_validation = any(row.split == "Validation" for row in rows)
    for fold in folds_of(rows, "official", unknown_speakers=True):
        assert utterances_of(rows, fold.train) | utterances_of(rows, fold.validation) == {
            row.utterance for row in rows if not row.split.lower().startswith("test")
        }
        if not given_validation:
            assert all(speaker.startswith("0") for speaker in speakers_of(rows, fold.validation))
            assert not speakers_of(rows, fold.validation) & speakers_of(rows, fold.train)


@settings(max_examples=25, deadline=None)
@given(speakers=st.integers(3, 12), per_class=st.integers(1, 6), sessions=st.integers(0, 6))
def test_balanced_data_always_have_folds_with_all_classes_in_validation(
    speakers, per_class, sessions
) -> None:
    rows = balanced(speakers, per_class, min(sessions, speakers))
    for scheme in ("auto", "speaker", "group3"):
        folds = make_folds(rows, scheme)
        check(rows, folds)
        assert all(len({rows[i].emotion for i in fold.validation}) == 3 for fold in folds)


def test_folds_and_halves_stay_what_they_were_when_figures_were_measured() -> None:
    rows = balanced(8, per_class=1)
    folds = make_folds(rows, "group4")
    assert [[" ".join(sorted(speakers_of(rows, part))) for part in parts_of(fold)] for fold in folds] == [
        ["S0 S1 S4 S7", "S2 S5", "S3 S6"],
        ["S1 S3 S5 S7", "S4 S6", "S0 S2"],
        ["S0 S2 S4 S7", "S3 S6", "S1 S5"],
        ["S0 S1 S3 S6", "S2 S5", "S4 S7"],
    ]
    assert halves(rows, range(24), 0.5, seed=2)[0].tolist() == [1, 2, 3, 5, 6, 12, 13, 16, 18, 19, 20, 23]


def test_a_quarter_of_the_training_side_validates() -> None:
    folds = make_folds(balanced(10, per_class=4, sessions=5))
    assert {len(speakers_of(balanced(10, 4), fold.validation)) for fold in folds} == {2}


def test_unknown_speakers_are_left_out() -> None:
    known = balanced(6)
    rows = [*known, *(Row(f"x{name}", name, "sad") for name in ("", "unknown", "Unknown", " UNKNOWN "))]
    check(rows, make_folds(rows))
    assert named(rows, make_folds(rows)) == named(known, make_folds(known))


def test_a_class_of_unknown_speakers_alone_is_no_obstacle() -> None:
    rows = [*balanced(6), Row("x", "Unknown", "fearful")]
    check(rows, make_folds(rows))


def test_a_rare_class_stays_in_training() -> None:
    rows = balanced(8)
    rows += [Row(f"rare-{s}", f"S{s}", "fearful") for s in (1, 5)]
    check(rows, make_folds(rows, "speaker"))
    with pytest.raises(UserError, match=r"fold 2 of .*only test speakers have fearful"):
        make_folds(rows[:-1], "speaker")


def test_a_class_of_one_speaker_stays_in_training_and_the_first_group_without_it_validates() -> None:
    """The training side is dealt into S5 S6, S2 S4, S0, S1 S3."""
    rows = [replace(row, split="Test" if row.speaker == "S7" else "Train") for row in balanced(8)]
    rows.append(Row("rare", "S1", "fearful", split="Train"))
    (fold,) = make_folds(rows, "official")
    assert speakers_of(rows, fold.validation) == {"S5", "S6"}


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (balanced(2), "auto", "^2 speakers: training, validation and test need at least 3, one each$"),
        ([], "auto", "0 speakers"),
        (
            [*balanced(2), Row("x", "Unknown", "sad"), Row("y", "", "sad")],
            "auto",
            r"2 speakers.*\(2 utterances have no",
        ),
        ([*balanced(2), Row("x", "Unknown", "sad")], "official", "2 speakers"),
        (
            [*balanced(4), Row("x", "S1", "sad", copy="speed:0.9")],
            "auto",
            "utterance x has perturbed copies and no",
        ),
    ],
)
def test_errors(rows, scheme: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(rows, scheme)


def test_errors_do_not_depend_on_the_order_of_rows() -> None:
    with pytest.raises(UserError, match="utterance 0-angry-0 has no session"):
        make_folds(balanced(4)[::-1], "session")


def test_only_official_keeps_unknown_speakers() -> None:
    with pytest.raises(UserError, match="'speaker': only official can keep"):
        make_folds(balanced(4), "speaker", unknown_speakers=True)


def test_folds_are_numbered_from_one() -> None:
    folds = make_folds(balanced(4))
    assert choose_fold(folds, 1) is folds[0]
    assert choose_fold(folds, 4) is folds[3]
    for fold in (0, 5, -1):
        with pytest.raises(UserError, match=f"fold {fold} out of range: this dataset has folds 1 to 4"):
            choose_fold(folds, fold)


def test_the_published_protocol_trains_on_validation_rows_and_picks_on_the_test() -> None:
    fold = Fold(np.array([0, 4]), np.array([2]), np.array([1, 3]))
    assert [part.tolist() for part in fold.parts("paper")] == [[0, 2, 4], [1, 3]]
    assert [part.tolist() for part in fold.parts("held_out")] == [[0, 4], [2]]


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_halves_share_each_class_out(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    manifest, rows = [Row(str(n), "", str(label)) for n, label in enumerate(labels)], np.arange(len(labels))
    weights, alphas = halves(manifest, rows[::-1], 0.5, seed)
    assert sorted([*weights, *alphas]) == list(rows)
    assert (np.diff(weights) > 0).all()
    assert (np.diff(alphas) > 0).all()
    assert abs(len(weights) - len(alphas)) <= 1
    for number, count in enumerate(counts):
        assert abs((labels[weights] == number).sum() - count / 2) <= 1


@settings(max_examples=30, deadline=None)
@given(data=st.data(), portion=st.sampled_from([0.3, 0.5, 0.8]))
def test_halves_of_windows_and_copies_are_those_of_the_utterances(data, portion: float) -> None:
    plain = balanced(4, per_class=4)
    rows = [rows for row in plain for rows in sorted(data.draw(spread([row])), key=lambda each: each.copy)]
    weights, alphas = halves(rows, range(len(rows)), portion, seed=1)
    expected = [utterances_of(plain, half) for half in halves(plain, range(len(plain)), portion, seed=1)]
    assert [utterances_of(rows, weights), utterances_of(rows, alphas)] == expected
    assert list(weights) == [n for n, row in enumerate(rows) if row.utterance in expected[0]]
    assert list(alphas) == [n for n, row in enumerate(rows) if row.utterance in expected[1] and not row.copy]


def test_halves_look_only_at_their_rows() -> None:
    manifest = [Row(str(n), "", emotion) for n, emotion in enumerate("aabbbaba")]
    weights, alphas = halves(manifest, np.array([0, 1, 3, 4]), 0.5, seed=0)
    assert sorted([*weights, *alphas]) == [0, 1, 3, 4]
    with pytest.raises(UserError, match="class b has a single training utterance"):
        halves(manifest, np.array([0, 1, 2]), 0.5, seed=0)
    with pytest.raises(UserError, match=r"cannot split 8 training utterances at train_portion 0\.05"):
        halves(manifest, np.arange(8), 0.05, seed=0)
    with pytest.raises(UserError, match="class b has a single training utterance"):
        halves([*manifest, replace(manifest[2], number=1)], np.array([0, 1, 2, 8]), 0.5, seed=0)


def test_natural_order() -> None:
    assert sorted(["S10", "S2", "a", "10", "S1b", "9"], key=natural) == ["9", "10", "S1b", "S2", "S10", "a"]
    assert natural("S01") != natural("S1")
