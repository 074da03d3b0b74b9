"""Properties of the folds and of the split between weights and alphas, on random manifests."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from manifest_rows import EMOTIONS, Row, balanced, expanded, manifests, speakers_of, utterances_of

from data.corpora import read_corpus
from data.folds import Fold, choose_fold, make_folds
from data.halves import halves
from utils import UserError

SCHEMES = ["auto", "session", "speaker", "group2", "group3", "group5", "official", "emodarts"]


def folds_of(rows, scheme: str, **options) -> list[Fold]:
    try:
        return make_folds(rows, scheme, **options)
    except UserError:
        assume(False)


def parts_of(fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return fold.train, fold.validation, fold.test


def rows_of(rows, folds) -> list[tuple[set, ...]]:
    return [tuple({rows[i] for i in part} for part in parts_of(fold)) for fold in folds]


def check(rows, folds, complete: bool = True) -> None:
    """Check the properties of all folds.

    If `complete`, the tests together, and the parts of each fold, have all originals of known speakers.
    """
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
        if complete:
            assert set(originals) <= set(np.concatenate(parts))
    if complete:
        assert len(folds) >= 2
        assert sorted(tested) == originals


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=40)
@given(data=st.data())
def test_any_manifest_gives_valid_folds_or_an_error(scheme: str, data) -> None:
    rows = data.draw(expanded(data.draw(manifests())))
    check(rows, folds_of(rows, scheme), complete=scheme not in ("official", "emodarts"))


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=20)
@given(data=st.data())
def test_windows_copies_and_row_order_do_not_move_utterances(scheme: str, data) -> None:
    plain = data.draw(manifests())
    folds = folds_of(plain, scheme)
    rows = data.draw(expanded(plain))
    for before, after in zip(folds, make_folds(rows, scheme), strict=True):
        for part, again in zip(parts_of(before), parts_of(after), strict=True):
            assert utterances_of(plain, part) == utterances_of(rows, again)
        trained = utterances_of(rows, after.train)
        assert {row for row in rows if row.utterance in trained} == {rows[i] for i in after.train}
    moved = data.draw(st.permutations(rows))
    assert rows_of(moved, make_folds(moved, scheme)) == rows_of(rows, make_folds(rows, scheme))


def test_first_original_row_represents_its_utterance() -> None:
    plain = balanced(6)
    others = [replace(row, speaker="Unknown", emotion="fearful", number=1) for row in plain]
    rows = [*(replace(row, copy="speed:0.9") for row in others), *plain, *others]
    for before, after in zip(make_folds(plain), make_folds(rows), strict=True):
        for part, again in zip(parts_of(before), parts_of(after), strict=True):
            assert utterances_of(plain, part) == utterances_of(rows, again)


@settings(max_examples=20)
@given(data=st.data())
def test_official_keeps_unknown_speakers_but_does_not_choose_them_for_validation(data) -> None:
    rows = data.draw(expanded(data.draw(manifests())))
    given_validation = any(row.split == "Validation" for row in rows)
    not_tested = {row.utterance for row in rows if not row.split.lower().startswith("test")}
    for fold in folds_of(rows, "official", unknown_speakers=True):
        assert utterances_of(rows, fold.train) | utterances_of(rows, fold.validation) == not_tested
        if not given_validation:
            assert all(speaker.startswith("0") for speaker in speakers_of(rows, fold.validation))
            assert not speakers_of(rows, fold.validation) & speakers_of(rows, fold.train)


@settings(max_examples=25)
@given(speakers=st.integers(3, 12), per_class=st.integers(1, 6), sessions=st.integers(0, 6))
def test_balanced_data_have_all_classes_in_validation(speakers, per_class, sessions) -> None:
    rows = balanced(speakers, per_class, min(sessions, speakers))
    for scheme in ("auto", "speaker", "group3"):
        folds = make_folds(rows, scheme)
        check(rows, folds)
        assert all(len({rows[i].emotion for i in fold.validation}) == 3 for fold in folds)


def test_folds_and_halves_are_those_of_the_published_results() -> None:
    rows = balanced(8, per_class=1)
    folds = make_folds(rows, "group4")
    parts = [part for fold in folds for part in parts_of(fold)]
    speakers = [" ".join(sorted(speakers_of(rows, part))) for part in parts]
    assert [speakers[i : i + 3] for i in range(0, 12, 3)] == [
        ["S0 S1 S4 S7", "S2 S5", "S3 S6"],
        ["S1 S3 S5 S7", "S4 S6", "S0 S2"],
        ["S0 S2 S4 S7", "S3 S6", "S1 S5"],
        ["S0 S1 S3 S6", "S2 S5", "S4 S7"],
    ]
    assert halves(rows, range(24), 0.5, seed=2)[0].tolist() == [1, 2, 3, 5, 6, 12, 13, 16, 18, 19, 20, 23]


def test_a_quarter_of_the_training_side_is_for_validation() -> None:
    folds = make_folds(balanced(10, per_class=4, sessions=5))
    assert {len(speakers_of(balanced(10, 4), fold.validation)) for fold in folds} == {2}


@pytest.mark.parametrize("speakers", range(3, 14))
def test_validation_is_nearest_to_a_quarter_also_of_few_speakers(speakers: int) -> None:
    """With five speakers on the training side, one is nearer to a quarter than two."""
    rows = balanced(speakers)
    for fold in make_folds(rows, "speaker"):
        held_out = len(speakers_of(rows, fold.validation))
        best = min(abs(4 * count - (speakers - 1)) for count in range(1, speakers - 1))
        assert abs(4 * held_out - (speakers - 1)) == best


def test_validation_of_unequal_speakers_is_the_nearest_to_a_quarter_that_has_all_classes() -> None:
    """The training side has S1 (6), S2 (6), S3 (24) and S4 (2 of one class) of 38 utterances: a quarter is 9.5."""
    each = {"S0": 2, "S1": 2, "S2": 2, "S3": 8}
    rows = [Row(f"{s}{e}{i}", s, e) for s, count in each.items() for e in EMOTIONS for i in range(count)]
    rows += [Row(f"S4{i}", "S4", "sad") for i in range(2)]
    held_out = speakers_of(rows, make_folds(rows, "speaker")[0].validation)
    sizes = {"S1": 6, "S2": 6, "S3": 24, "S4": 2}
    assert abs(sum(sizes[speaker] for speaker in held_out) - 9.5) <= 3.5
    assert held_out != {"S4"}


# ---------------------------------------------------------------- women and men

EMODB = {  # utterances of each speaker of EMO-DB, in all seven emotions
    "03": 49, "08": 58, "09": 43, "10": 38, "11": 55, "12": 35, "13": 61, "14": 69, "15": 56, "16": 71
}  # fmt: skip


def with_sexes(counts: dict[str, int], men: str) -> list[Row]:
    """Rows in which every speaker has so many utterances, of three emotions in turn."""
    sexes = {speaker: "male" if speaker in men.split() else "female" for speaker in counts}
    return [
        Row(f"{speaker}{i:03d}", speaker, EMOTIONS[i % 3], sex=sexes[speaker])
        for speaker, count in counts.items()
        for i in range(count)
    ]


def sexes_of(rows, part: np.ndarray) -> dict[str, int]:
    """The number of speakers of each sex."""
    speakers = {(rows[i].speaker, rows[i].sex) for i in part}
    return dict(Counter(sex for _, sex in speakers))


def test_folds_of_ten_speakers_test_a_woman_and_a_man_each() -> None:
    rows = with_sexes(EMODB, "03 10 11 12 15")
    folds = make_folds(rows, "auto")
    check(rows, folds)
    for fold in folds:
        assert sexes_of(rows, fold.test) == sexes_of(rows, fold.validation) == {"female": 1, "male": 1}


def test_folds_of_24_actors_test_two_or_three_women_and_men() -> None:
    rows = with_sexes(
        {f"{actor:02d}": 12 for actor in range(1, 25)}, " ".join(f"{a:02d}" for a in range(1, 25, 2))
    )
    for scheme in ("auto", "group4", "group3", "speaker"):
        for fold in make_folds(rows, scheme):
            parts = [sexes_of(rows, part) for part in (fold.train, fold.validation, fold.test)]
            assert all(abs(part.get("female", 0) - part.get("male", 0)) <= 1 for part in parts)


@settings(max_examples=25)
@given(
    counts=st.lists(st.integers(6, 40), min_size=8, max_size=20),
    men=st.integers(4, 16),
    groups=st.integers(2, 4),
)
def test_every_group_has_both_sexes_if_there_are_enough_speakers(counts, men: int, groups: int) -> None:
    assume(len(counts) - men >= 4)
    speakers = {f"S{number:02d}": count for number, count in enumerate(counts)}
    rows = with_sexes(speakers, " ".join(list(speakers)[:men]))
    assert all(len(sexes_of(rows, fold.test)) == 2 for fold in make_folds(rows, f"group{groups}"))


@pytest.mark.parametrize("scheme", ["auto", "speaker", "group3"])
def test_folds_of_one_sex_are_those_of_unknown_sexes(scheme: str) -> None:
    unknown = balanced(9, per_class=3)[:-7]
    women = [replace(row, sex="female") for row in unknown]
    for one, other in zip(make_folds(unknown, scheme), make_folds(women, scheme), strict=True):
        assert [part.tolist() for part in parts_of(one)] == [part.tolist() for part in parts_of(other)]


def test_the_only_woman_stays_in_training() -> None:
    rows = with_sexes({f"S{n}": 9 for n in range(8)}, "S0 S1 S2 S3 S4 S5 S6")
    for fold in make_folds(rows, "speaker")[:7]:
        assert sexes_of(rows, fold.validation) == {"male": 2}


def test_sexes_that_leave_too_few_utterances_for_the_groups_do_not_prevent_them() -> None:
    rows = [
        Row(str(n), f"S{n}", "sad" if n % 2 else "happy", sex=("male", "female")[n // 5]) for n in range(10)
    ]
    assert len(make_folds(rows, "group5")) == 5


@pytest.mark.parametrize("corpus", ["emodb", "ravdess"])
def test_folds_of_the_real_corpora_test_and_validate_on_both_sexes(corpus: str) -> None:
    if "EMODARTS_CORPORA" not in os.environ:
        pytest.skip("EMODARTS_CORPORA does not name the folder of the corpora")
    utterances = read_corpus(corpus, Path(os.environ["EMODARTS_CORPORA"], corpus))
    rows = [Row(each.utterance, each.speaker, each.emotion, sex=each.sex) for each in utterances]
    for scheme in ("auto", "group4", "group3"):
        folds = make_folds(rows, scheme)
        check(rows, folds)
        for fold in folds:
            assert len(sexes_of(rows, fold.test)) == len(sexes_of(rows, fold.validation)) == 2
            assert 0.2 <= len(fold.validation) / len(np.concatenate([fold.train, fold.validation])) <= 0.3


# ---------------------------------------------------------------- unknown speakers and rare classes


def test_unknown_speakers_are_left_out() -> None:
    known = balanced(6)
    rows = [*known, *(Row(f"x{name}", name, "sad") for name in ("", "unknown", "Unknown", " UNKNOWN "))]
    check(rows, make_folds(rows))
    assert rows_of(rows, make_folds(rows)) == rows_of(known, make_folds(known))


def test_class_of_unknown_speakers_only_is_ignored() -> None:
    rows = [*balanced(6), Row("x", "Unknown", "fearful")]
    check(rows, make_folds(rows))


def test_a_rare_class_stays_in_training() -> None:
    rows = balanced(8)
    rows += [Row(f"rare-{s}", f"S{s}", "fearful") for s in (1, 5)]
    check(rows, make_folds(rows, "speaker"))
    with pytest.raises(UserError, match=r"fold 2 of .*only test speakers have fearful"):
        make_folds(rows[:-1], "speaker")


def test_validation_is_the_first_group_without_a_class_of_one_speaker() -> None:
    """The training side has the groups S5 S6, S2 S4, S0, S1 S3."""
    rows = [replace(row, split="Test" if row.speaker == "S7" else "Train") for row in balanced(8)]
    rows.append(Row("rare", "S1", "fearful", split="Train"))
    (fold,) = make_folds(rows, "official")
    assert speakers_of(rows, fold.validation) == {"S5", "S6"}


TWO_SPEAKERS = [*balanced(2), Row("x", "Unknown", "sad"), Row("y", "", "sad")]


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (
            balanced(2),
            "auto",
            "^2 speakers: .* need at least 3, one each; to train on these and test on another",
        ),
        (balanced(1), "speaker", "^1 speakers: .*a CSV .* with a column split, and pass --folds_by official"),
        ([], "auto", "0 speakers"),
        (TWO_SPEAKERS, "auto", r"2 speakers.*\(2 utterances have no"),
        (TWO_SPEAKERS[:-1], "official", "utterance 0-angry-0 has no split"),
        ([*balanced(4), Row("x", "S1", "sad", copy="speed:0.9")], "auto", "utterance x has .* no original"),
    ],
)
def test_unsuitable_manifests_are_refused(rows, scheme: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(rows, scheme)


def test_two_speakers_can_be_trained_on_and_tested_on_another_corpus() -> None:
    """TESS, for example, has two speakers; a column split adds others."""
    rows = [replace(row, split="train") for row in balanced(2)]
    rows += [replace(row, utterance=f"x{row.utterance}", speaker="X", split="test") for row in balanced(1)]
    (fold,) = make_folds(rows, "official")
    assert [len(speakers_of(rows, part)) for part in parts_of(fold)] == [1, 1, 1]
    two = [
        replace(row, split=("train", "val", "test")[n % 3])
        for n, row in enumerate(sorted(balanced(2, 3), key=str))
    ]
    assert [len(part) for part in parts_of(make_folds(two, "official")[0])] == [6, 6, 6]


def test_errors_do_not_depend_on_the_row_order() -> None:
    with pytest.raises(UserError, match="utterance 0-angry-0 has no session"):
        make_folds(balanced(4)[::-1], "session")


def test_only_official_can_keep_unknown_speakers() -> None:
    with pytest.raises(UserError, match="'speaker': only official can keep"):
        make_folds(balanced(4), "speaker", unknown_speakers=True)


def test_folds_are_numbered_from_one() -> None:
    folds = make_folds(balanced(4))
    assert choose_fold(folds, 1) is folds[0]
    assert choose_fold(folds, 4) is folds[3]
    for fold in (0, 5, -1):
        with pytest.raises(UserError, match=f"fold {fold} out of range: this dataset has folds 1 to 4"):
            choose_fold(folds, fold)


def test_paper_protocol_trains_on_validation_rows_and_selects_on_the_test() -> None:
    fold = Fold(np.array([0, 4]), np.array([2]), np.array([1, 3]))
    assert [part.tolist() for part in fold.parts("paper")] == [[0, 2, 4], [1, 3]]
    assert [part.tolist() for part in fold.parts("held_out")] == [[0, 4], [2]]


def test_refit_trains_on_all_rows_but_those_of_the_test_and_selects_nothing() -> None:
    rows = [replace(row, copy=copy) for row in balanced(5) for copy in ("", "speed:0.9")]
    for fold in make_folds(rows, "speaker"):
        train, picking = fold.parts("refit")
        tested = {rows[row].speaker for row in fold.test}
        assert train.tolist() == [i for i, row in enumerate(rows) if row.speaker not in tested]
        assert len(picking) == 0
        assert not any(rows[row].copy for row in (*fold.validation, *fold.test))
