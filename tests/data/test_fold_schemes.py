"""The fold schemes: the exact folds of each on small manifests like those of the corpora, and errors."""

import re
from dataclasses import replace

import numpy as np
import pytest
from manifest_rows import Row
from pydantic import ValidationError

from config import FoldFlags
from data.fold_schemes import SCHEME_NAMES, SCHEMES, natural_sort_key, utterance_folds
from data.folds import Fold, make_folds
from utils import UserError

EMOTIONS = ("angry", "sad")


def corpus(name: str, speakers: list[tuple[str, str, str]]) -> list[Row]:
    """One utterance per emotion of each (speaker, session, split), named by the format `name`."""
    return [
        Row(name.format(2 * n + i, session=session, speaker=speaker), speaker, emotion, session, split)
        for n, (speaker, session, split) in enumerate(speakers)
        for i, emotion in enumerate(EMOTIONS)
    ]


def iemocap() -> list[Row]:
    speakers = [(f"0{k}{side}", str(k), "") for k in range(1, 6) for side in "FM"]
    return corpus("Ses{speaker}_impro01_{0:03d}", speakers)


def improv() -> list[Row]:
    speakers = [(f"{side}0{k}", str(k), "") for k in range(1, 7) for side in "FM"]
    return corpus("MSP-IMPROV-S01A-{speaker}-P-FM{0:02d}", speakers)


def podcast(*speakers: tuple[str, str]) -> list[Row]:
    return corpus("MSP-PODCAST_0001_{0:04d}", [(speaker, "", split) for speaker, split in speakers])


def balanced(speakers: int, sessions: int = 0) -> list[Row]:
    """Consecutive speakers share a session."""
    names = [str(s * sessions // speakers + 1) if sessions else "" for s in range(speakers)]
    return corpus("{0}", [(f"S{s}", session, "") for s, session in enumerate(names)])


def parts_of(fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return fold.train, fold.validation, fold.test


def values(rows: list[Row], part: np.ndarray, field: str) -> str:
    """The distinct values of a field in a part of a fold."""
    return " ".join(sorted({getattr(rows[n], field) for n in part}))


def held_out(rows: list[Row], scheme: str, field: str = "speaker") -> list[str]:
    """The speakers (or sessions) that each fold tests."""
    return [values(rows, fold.test, field) for fold in make_folds(rows, scheme)]


def official_splits(rows: list[Row], **options) -> list[tuple[str, ...]]:
    """The publisher's splits in the three parts of each fold of the scheme `official`."""
    folds = make_folds(rows, "official", **options)
    return [tuple(values(rows, part, "split") for part in parts_of(fold)) for fold in folds]


def test_session_folds_are_in_natural_order() -> None:
    names = {"1": "Ses10", "2": "Ses9", "3": "Ses1", "4": "Ses2", "5": "Ses30"}
    rows = [replace(row, session=names[row.session]) for row in balanced(10, sessions=5)]
    assert held_out(rows, "session", "session") == ["Ses1", "Ses2", "Ses9", "Ses10", "Ses30"]
    assert held_out(rows, "auto", "session") == ["Ses1", "Ses2", "Ses9", "Ses10", "Ses30"]


def test_speaker_folds_are_in_natural_order() -> None:
    assert held_out(balanced(11), "speaker") == [f"S{n}" for n in range(11)]


@pytest.mark.parametrize(
    ("speakers", "sessions", "folds"),
    [(12, 4, 4), (12, 2, 5), (12, 0, 5), (7, 0, 5), (6, 0, 6), (6, 2, 6), (5, 0, 5), (4, 0, 4), (3, 0, 3)],
)
def test_auto_uses_three_or_more_sessions_else_up_to_six_speakers_else_five_groups(
    speakers: int, sessions: int, folds: int
) -> None:
    assert len(make_folds(balanced(speakers, sessions))) == folds


@pytest.mark.parametrize(
    ("session", "message"),
    [("4", "speaker S0 is in more than one session"), ("", "utterance 0 has no session")],
)
def test_auto_ignores_sessions_that_share_a_speaker_or_are_missing(session: str, message: str) -> None:
    first, *others = balanced(8, sessions=4)
    rows = [replace(first, session=session), *others]
    assert len(make_folds(rows)) == 5
    with pytest.raises(UserError, match=message):
        make_folds(rows, "session")


def test_official_has_one_fold_per_test_set_without_the_other_test_sets() -> None:
    splits = ("Test3", "Train", "Development", "Test1", "Train", "Test2", "Test10")
    rows = podcast(*((str(n), split) for n, split in enumerate(splits)))
    expected = [("Train", "Development", test) for test in ("Test1", "Test2", "Test3", "Test10")]
    assert official_splits(rows) == expected
    assert [sum(map(len, parts_of(fold))) for fold in make_folds(rows, "official")] == [8] * 4


def test_official_folds_of_esd_share_speakers() -> None:
    rows = [
        Row(f"{speaker}_{split}_{emotion}", speaker, emotion, split=split)
        for speaker in ("0011", "0012", "0013")
        for split in ("train", "evaluation", "test")
        for emotion in EMOTIONS
    ]
    assert official_splits(rows) == [("train", "evaluation", "test")]
    (fold,) = make_folds(rows, "official")
    assert values(rows, fold.test, "speaker") == values(rows, fold.train, "speaker") == "0011 0012 0013"


@pytest.mark.parametrize(
    "name",
    [
        "development",
        "DEV",
        "Validation",
        "valid",
        "val",
        "evaluation",
        "eval",
        "Eval",
        "devel",
        "dev-other",
        "dev_clean",
        "dev2",
        "devset",
    ],
)
@pytest.mark.parametrize(
    ("train", "test"), [("train", "TEST"), ("Training", "test_unseen"), (" train-clean-100", "test-other")]
)
def test_official_accepts_common_names_of_splits(name: str, train: str, test: str) -> None:
    rows = podcast(("1", train), ("2", name), ("3", test), ("4", train))
    assert official_splits(rows) == [(train, name, test)]


@pytest.mark.parametrize("name", ["eval", "Evaluation", "eval92"])
def test_eval_is_the_test_set_if_there_is_no_other(name: str) -> None:
    """As in corpora that are split into train, dev and eval."""
    assert official_splits(podcast(("1", "train"), ("2", "dev"), ("3", name))) == [("train", "dev", name)]


def test_official_merges_the_validation_sets_and_keeps_the_test_sets_apart() -> None:
    names = ("train-clean", "train-other", "dev-clean", "dev-other", "test-clean", "test-other")
    rows = podcast(*((str(n), name) for n, name in enumerate(names)))
    train, validation = "train-clean train-other", "dev-clean dev-other"
    assert official_splits(rows) == [(train, validation, test) for test in ("test-clean", "test-other")]


@pytest.mark.parametrize("name", ["trainer", "device", "value", "evaluate", "holdout", "unused"])
def test_other_words_are_no_splits(name: str) -> None:
    with pytest.raises(UserError, match=f"is in the unknown split '{name}': known are train, dev,"):
        make_folds(podcast(("1", "train"), ("2", name), ("3", "test"), ("4", "train")), "official")


def test_official_without_validation_split_holds_out_training_speakers() -> None:
    rows = podcast(("1", "Train"), ("2", "Train"), ("3", "Train"), ("4", "Test1"))
    assert official_splits(rows) == [("Train", "Train", "Test1")]
    (fold,) = make_folds(rows, "official")
    assert [len(part) for part in parts_of(fold)] == [4, 2, 2]


def test_official_keeps_unknown_speakers_on_request() -> None:
    splits = ("Train", "Development", "Test1")
    unknown = [("Unknown", split) for split in splits]
    rows = podcast(*unknown, *((f"{split}er", split) for split in splits))
    for keep, size in ((False, 2), (True, 4)):
        (fold,) = make_folds(rows, "official", unknown_speakers=keep)
        assert [len(part) for part in parts_of(fold)] == [size] * 3
    assert official_splits(podcast(*unknown), unknown_speakers=True) == [splits]
    with pytest.raises(UserError, match="no known training speaker can be held out for validation"):
        make_folds(podcast(unknown[0], unknown[2]), "official", unknown_speakers=True)


def test_official_training_must_have_all_classes() -> None:
    rows = podcast(("1", "Train"), ("2", "Development"), ("3", "Test1"))
    rows[2] = replace(rows[2], emotion="happy")
    message = r"fold 1 of scheme 'official'.*only test and validation speakers have happy"
    with pytest.raises(UserError, match=message):
        make_folds(rows, "official")


@pytest.mark.parametrize(
    ("rows", "tests"),
    [
        (iemocap(), ["01M 02F", "02M 03F", "03M 04F", "04M 05F", "01F 05M"]),
        (improv(), ["F01 M01", "F02 M02", "F03 M03", "F05 M05"]),
    ],
)
def test_emodarts_tests_the_published_speakers(rows: list[Row], tests: list[str]) -> None:
    assert held_out(rows, "emodarts") == tests
    for fold in make_folds(rows, "emodarts"):
        assert len(fold.train) + len(fold.validation) == len(rows) - 4


def test_emodarts_podcast_has_five_groups_of_speakers() -> None:
    """Of 28 utterances, two per speaker, a group is closed at more than 5, that is, at three speakers."""
    splits = ("Train", "Test1", "Test2", "train")
    speakers = [(str(n), splits[n % 4]) for n in (1, 2, 3, 10, 11, 12, 20, 21, 30, 100, 101, 111, 112, 113)]
    rows = podcast(*speakers, ("0", "Development"), ("00", "Test3"), ("Unknown", "Train"))
    assert held_out(rows, "emodarts") == ["3 30", "2 20 21", "112 113 12", "101 11 111", "1 10 100"]
    for fold in make_folds(rows, "emodarts"):
        assert sorted(np.concatenate(parts_of(fold))) == list(range(28))


@pytest.mark.parametrize("unequal", [1, 7, 30])
def test_emodarts_podcast_never_makes_a_sixth_group(unequal: int) -> None:
    random = np.random.default_rng(unequal)
    for _ in range(200):
        counts = random.integers(1, unequal + 1, size=random.integers(5, 12))
        rows = [
            Row(f"MSP-PODCAST_{speaker:04d}_{n:04d}", f"{speaker:02d}", "sad", split="Train")
            for speaker, count in enumerate(counts)
            for n in range(count)
        ]
        try:
            folds = utterance_folds(rows, "emodarts")
        except UserError:
            continue
        assert len(folds) == 5
        assert all(len(fold.test) > len(rows) // 5 for fold in folds[1:])
        assert np.concatenate([fold.test for fold in folds[::-1]]).tolist() == list(range(len(rows)))
        assert all(len(fold.training) + len(fold.test) == len(rows) for fold in folds)


TRAIN = [("1", "Train"), ("2", "dev")]
TEST = [("1", "Test1"), ("2", "Test2")]


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (balanced(4), "session", "utterance 0 has no session"),
        (balanced(4, sessions=1), "session", "only one session"),
        (balanced(4), "group5", "4 speakers make 2 to 4 groups"),
        (balanced(4), "group1", "2 to 4 groups"),
        (balanced(4)[::2], "group0", "2 to 4 groups"),
        (balanced(4), "groupK", "unknown .* 'groupK': known are auto, session, speaker, official, emodarts"),
        (balanced(4), "official", "utterance 0 has no split; --folds_by auto has folds"),
        (podcast(*TRAIN, ("3", "holdout")), "official", "0004 is in the unknown split 'holdout'"),
        (podcast(*TRAIN, ("3", "Train")), "official", "no utterance is in a test split"),
        (podcast(*TEST, ("3", "dev")), "official", "no utterance is in a training split"),
        (balanced(4), "emodarts", "is only for IEMOCAP, MSP-IMPROV and MSP-Podcast"),
        (iemocap() + improv(), "emodarts", "is only for IEMOCAP, MSP-IMPROV and MSP-Podcast"),
        (iemocap()[:-2], "emodarts", "tests speaker 05M, which has no utterance"),
        (improv()[4:], "emodarts", "tests session 1, which has no utterance"),
        (podcast(*TRAIN, ("3", "Test1"), ("4", "Test3")), "emodarts", "the 4 utterances .* fill 2 of 5"),
        (podcast(*((str(n), "Test3") for n in range(5))), "emodarts", "the 0 utterances"),
    ],
)
def test_unsuitable_manifests_are_refused(rows: list[Row], scheme: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(rows, scheme)


def test_the_scheme_that_an_error_names_has_folds() -> None:
    """Otherwise one refusal would send to the next: group5 here lacks a class where group2 does not."""
    rows = [replace(row, emotion="angry") for row in balanced(8)]
    rows += [Row(f"sad{s}{n}", f"S{s}", "sad") for s in range(4) for n in range(4)]
    named = 0
    for scheme in ("session", "official", "emodarts", "group5", "group4", "speaker"):
        try:
            make_folds(rows, scheme)
        except UserError as error:
            named += 1
            other = re.search(r"--folds_by (\w+) has folds$", str(error))
            assert make_folds(rows, other[1])
    assert named >= 3
    alone = [replace(row, emotion="angry") if row.speaker != "S0" else row for row in balanced(8)]
    with pytest.raises(UserError, match=r"speakers have sad, .*; no other --folds_by has folds either$"):
        make_folds(alone, "speaker")


@pytest.mark.parametrize("scheme", ["auto", "session", "speaker", "group3", "official"])
def test_one_class_is_refused(scheme: str) -> None:
    rows = [
        replace(row, emotion="sad", split=("train", "dev", "test")[int(row.session) - 1])
        for row in balanced(9, sessions=3)
    ]
    with pytest.raises(
        UserError, match=r"fold 1 of scheme .*: sad is its only class; a classifier needs two"
    ):
        make_folds(rows, scheme)


def test_one_class_in_the_splits_of_a_fold_is_refused() -> None:
    """The other class is in a test set of its own."""
    rows = [replace(row, emotion="sad") for row in podcast(*TRAIN, ("3", "Test1"))]
    rows += [replace(row, utterance=f"x{row.utterance}") for row in podcast(("4", "Test2"))]
    with pytest.raises(UserError, match="fold 1 of scheme 'official': sad is its only class"):
        make_folds(rows, "official")


@pytest.mark.parametrize("scheme", [*SCHEMES, "group2", "group10", "group99"])
def test_flag_accepts_every_scheme(scheme: str) -> None:
    assert FoldFlags(folds_by=scheme).folds_by == scheme
    assert re.sub(r"\d+", "K", scheme) in SCHEME_NAMES


@pytest.mark.parametrize(
    "scheme", ["", "group", "group0", "groupK", "group100", "Session", "sessions", "paper"]
)
def test_flag_refuses_anything_else(scheme: str) -> None:
    with pytest.raises(ValidationError):
        FoldFlags(folds_by=scheme)


def test_natural_order() -> None:
    names = ["S10", "S2", "a", "10", "S1b", "9"]
    assert sorted(names, key=natural_sort_key) == ["9", "10", "S1b", "S2", "S10", "a"]
    assert natural_sort_key("S01") != natural_sort_key("S1")
